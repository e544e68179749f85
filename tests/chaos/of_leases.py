"""Invariants of leases and attempts: one holder at a time, and nobody else is listened to."""

import itertools
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

from tests.chaos.evidence import NEVER, UNJUDGED, Evidence, StreamChange, TaskChange
from tests.chaos.leases_over_time import LeasesOverTime

# The transitions that the product may make, written down a second time: here nobody looks up what the product thinks.
_LEGAL = frozenset(
    {
        ("", "queued"),
        ("queued", "released"),
        ("queued", "running"),
        ("released", "queued"),
        ("released", "running"),
        ("running", "succeeded"),
        ("running", "backoff"),
        ("running", "dead"),
        ("running", "queued"),
        ("running", "canceled"),
        ("running", "running"),
        ("backoff", "queued"),
        ("queued", "canceled"),
        ("released", "canceled"),
        ("backoff", "canceled"),
        ("dead", "queued"),
        ("dead", "skipped"),
        ("queued", "dead"),
        ("released", "dead"),
        ("queued", "skipped"),
        ("released", "skipped"),
    }
)
_RECORDED_AS = {
    "success": {"succeeded"},
    "failure": {"failed", "canceled"},
    "canceled": {"canceled"},
    "returned": {"returned", "canceled"},
}


def one_success_by_the_last_attempt(evidence: Evidence) -> Iterator[str]:
    """S6"""
    by_task = defaultdict(list)
    for attempt in evidence.attempts:
        by_task[attempt.task_id].append(attempt)
    for task_id, attempts in by_task.items():
        succeeded = [attempt.attempt for attempt in attempts if attempt.outcome == "succeeded"]
        if len(succeeded) > 1:
            yield f"task {task_id} succeeded in attempts {sorted(succeeded)}"
        elif succeeded and succeeded[0] < max(attempt.attempt for attempt in attempts):
            yield f"task {task_id} succeeded in attempt {succeeded[0]}, and was attempted again"
    for task in evidence.tasks:
        ends = [attempt.outcome for attempt in by_task[task.task_id]]
        if task.state == "succeeded" and ends.count("succeeded") != 1:
            yield f"task {task.task_id} has succeeded, and no attempt of it"


def no_stale_lease_is_heard(evidence: Evidence) -> Iterator[str]:
    """S7"""
    attempts = {(attempt.task_id, attempt.attempt): attempt for attempt in evidence.attempts}
    held = {
        (change.task_id, change.attempt): change.token_digest
        for change in evidence.task_changes
        if change.state == "running"
    }
    for write in evidence.writes:
        if write.verdict != "ok":
            continue
        key = (write.task_id, write.attempt)
        attempt = attempts.get(key)
        token = attempt.token_digest if attempt is not None else held.get(key)
        what = f"{write.kind} of task {write.task_id}, attempt {write.attempt}"
        if token is not None and token != write.token_digest:
            yield f"{what}: accepted with another token than the attempt's"
        elif attempt is None and write.kind == "end":
            yield f"{what}: accepted, and the attempt has not ended"
        elif attempt is not None and write.kind == "end":
            # It may be said again, and gets its first answer then.
            if attempt.outcome not in _RECORDED_AS[write.outcome]:
                yield f"{what}: {write.outcome} was accepted, and {attempt.outcome} is on record"
        elif attempt is not None and attempt.ended_at < write.began:
            yield f"{what}: accepted {write.began - attempt.ended_at:.3f} s after the attempt had ended"


def attempts_are_counted_up(evidence: Evidence) -> Iterator[str]:
    """S8"""
    by_task = defaultdict(list)
    for attempt in evidence.attempts:
        by_task[attempt.task_id].append(attempt)
    for task in evidence.tasks:
        ended = sorted(attempt.attempt for attempt in by_task[task.task_id])
        last = task.attempt - (task.state == "running")
        if ended != list(range(1, last + 1)):
            yield f"task {task.task_id} is {task.state} at attempt {task.attempt}; ended are {ended}"
        tokens = Counter(attempt.token_digest for attempt in by_task[task.task_id])
        if any(count > 1 for count in tokens.values()):
            yield f"two attempts of task {task.task_id} have one token"


def leases_do_not_overlap(evidence: Evidence) -> Iterator[str]:
    """S9"""
    leases = LeasesOverTime(evidence)
    outcomes = {(attempt.task_id, attempt.attempt): attempt.outcome for attempt in evidence.attempts}
    for task_id, changes in leases.histories().items():
        for before, after in itertools.pairwise(changes):
            if before.state != "running":
                continue
            what = f"attempt {before.attempt} of task {task_id}"
            if after.state == "running":
                if (after.attempt, after.token_digest) != (before.attempt, before.token_digest):
                    yield f"{what} had the task when it was leased anew"
                elif _revived(before, after):
                    yield f"{what} had its lease extended after it had ended"
            elif outcomes.get((task_id, before.attempt)) == "lease_lost":
                until = leases.until(before, after.seq)
                if until is not None and until > after.at:
                    yield f"{what} was taken back before its lease had ended"
    for (_, stream_key), moves in leases.of_streams().items():
        yield from _overlaps_of_a_stream(stream_key, moves)


def _overlaps_of_a_stream(stream_key: str, moves: Sequence[StreamChange]) -> Iterator[str]:
    for before, after in itertools.pairwise(moves):
        what = f"epoch {before.epoch} of stream {stream_key!r}"
        if after.epoch == before.epoch:
            if _revived(before, after):
                yield f"{what} had its lease extended after it had ended"
        elif before.lease_until is not None and before.lease_until > after.at:
            yield f"{what} had the stream when it was leased anew"


def _revived(before: TaskChange | StreamChange, after: TaskChange | StreamChange) -> bool:
    """Whether a lease goes on that had ended before anybody asked for it."""
    if before.lease_until is None or after.lease_until is None:
        return False
    return after.lease_until > before.lease_until and before.lease_until <= after.began


def transitions_are_legal(evidence: Evidence) -> Iterator[str]:
    """S10"""
    for task_id, changes in LeasesOverTime(evidence).histories().items():
        state, attempt = "", 0
        for change in changes:
            if change.before != state:
                yield f"task {task_id} was {state}, and was changed as if {change.before}"
            if (change.before, change.state) not in _LEGAL:
                yield f"task {task_id} went from {change.before or 'nothing'} to {change.state}"
            claimed = change.state == "running" and change.before != "running"
            if change.attempt != attempt + claimed:
                yield f"task {task_id} went from attempt {attempt} to {change.attempt} as it became {change.state}"
            state, attempt = change.state, change.attempt


def calls_take_effect_once(evidence: Evidence) -> Iterator[str]:
    """S25"""
    made: dict[tuple[str, str], set[int]] = defaultdict(set)
    for change in evidence.task_changes:
        if change.state == "running" and change.before != "running" and change.request_id:
            made[change.request_id, change.task_id].add(change.attempt)
    for claim in evidence.claims:
        if claim.attempt:
            made[claim.request_id, claim.task_id].add(claim.attempt)
    for (request_id, task_id), attempts in made.items():
        if len(attempts) > 1:
            yield f"claim {request_id} made attempts {sorted(attempts)} of task {task_id}"
    applied = Counter(row.id for row in evidence.written if row.kind == "attempt")
    ended = Counter(attempt.task_id for attempt in evidence.attempts)
    for task_id, count in applied.items():
        if count != ended[task_id] and task_id not in evidence.gone_tasks:
            yield f"task {task_id} has {ended[task_id]} ended attempts, and {count} were written"
    yield from _accepted_and_then_refused(evidence)


def _accepted_and_then_refused(evidence: Evidence) -> Iterator[str]:
    """An emit with events that arrives again gets its first answer, or hears that its lease has ended."""
    accepted: dict[tuple[Any, ...], float] = {}
    for write in sorted(evidence.writes, key=lambda write: write.ended):
        if write.kind != "emit" or not write.events:
            continue
        which = write.task_id, write.attempt, write.token_digest, frozenset(one.key for one in write.events)
        if write.verdict == "ok":
            accepted.setdefault(which, write.ended)
        elif write.verdict == "refused" and write.reason not in UNJUDGED and accepted.get(which, NEVER) < write.began:
            yield f"an emit of task {write.task_id} was accepted, and refused when it arrived again: {write.reason}"
