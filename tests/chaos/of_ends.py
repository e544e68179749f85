"""Invariants of how tasks end, and that they do."""

import itertools
from bisect import bisect_left, bisect_right
from collections.abc import Iterator

from tests.chaos.evidence import Evidence
from tests.chaos.leases_over_time import LeasesOverTime

_OPEN = frozenset({"queued", "released", "running", "backoff"})


def attempts_have_a_limit(evidence: Evidence) -> Iterator[str]:
    """S23"""
    for task in evidence.tasks:
        if task.failed_attempts > task.max_attempts or task.lost_leases > task.max_lost_leases:
            yield f"task {task.task_id} failed {task.failed_attempts} times and lost {task.lost_leases} leases"
        if task.state == "dead" and not task.reason:
            yield f"task {task.task_id} is dead without a reason"


def what_was_cancelled_never_succeeds(evidence: Evidence) -> Iterator[str]:
    """S24"""
    states = {task.task_id: task.state for task in evidence.tasks}
    for cancel in evidence.cancels:
        if cancel.verdict != "ok" or cancel.task_id in evidence.gone_tasks:
            continue
        state = states.get(cancel.task_id, "not there")
        if state != "canceled" and (evidence.drained or state not in _OPEN):
            yield f"task {cancel.task_id} was cancelled, and is {state}"
        for attempt in evidence.attempts:
            if attempt.task_id == cancel.task_id and attempt.outcome == "succeeded" and attempt.ended_at > cancel.ended:
                yield f"task {cancel.task_id} succeeded after it was cancelled"


def everything_comes_to_an_end(evidence: Evidence) -> Iterator[str]:
    """L1: of what is active or being built, and builds too. What was taken back stays as it is, but nobody holds it."""
    if not evidence.drained:
        return
    for task in evidence.tasks:
        if task.state in _OPEN and (task.scheduled or task.state == "running"):
            yield f"task {task.task_id} is still {task.state}"
    for move in {move.dag: move for move in evidence.changes.moves}.values():
        if move.staged_version_id:
            yield f"version {move.staged_version_id} is still being built"
    for subscription in evidence.subscriptions:
        if subscription.scheduled and not subscription.replayed:
            yield f"job version {subscription.job_version_id} is still owed events of {subscription.version_id}"


def ended_leases_are_noticed(evidence: Evidence) -> Iterator[str]:
    """L2: in the end, and all the time. Where nobody wrote anything of any task there was nobody to notice: such
    seconds do not count."""
    limit = evidence.now - 2 * evidence.bounds.scan
    for task in evidence.tasks:
        if evidence.drained and task.state == "running" and task.lease_until is not None and task.lease_until < limit:
            yield f"the lease of task {task.task_id} ended {evidence.now - task.lease_until:.1f} s ago"
    if not evidence.attended:
        return
    written = sorted({int(change.at) for change in evidence.task_changes})
    for task_id, changes in LeasesOverTime(evidence).histories().items():
        for held, ended in itertools.pairwise(changes):
            if held.state != "running" or held.lease_until is None or ended.state == "running":
                continue
            late = bisect_left(written, int(ended.at)) - bisect_right(written, int(held.lease_until))
            if late > 2 * evidence.bounds.scan + evidence.bounds.slack:
                yield f"the lease of task {task_id} ended {ended.at - held.lease_until:.1f} s before anybody noticed"


def lost_wakeups_are_sent_again(evidence: Evidence) -> Iterator[str]:
    """L3"""
    bounds = evidence.bounds
    limit = evidence.now - bounds.unanswered - bounds.scan - bounds.slack
    for task in evidence.tasks:
        waits = task.scheduled and task.state == "released" and task.released_at is not None
        if evidence.drained and waits and task.released_at is not None and task.released_at < limit:
            yield f"the wake-up of task {task.task_id} was sent {evidence.now - task.released_at:.1f} s ago"
