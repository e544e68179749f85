"""Invariants of order: streams are worked off in the order of their scopes, and what is said to be complete is."""

import heapq
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator
from itertools import pairwise

from tests.chaos.evidence import Event, Evidence, WatermarkChange
from tests.chaos.switches_over_time import SwitchesOverTime

_PASSED = frozenset({"succeeded", "canceled", "skipped"})


def streams_keep_their_order(evidence: Evidence) -> Iterator[str]:
    """O1: when a task succeeds, none before it in its stream is left."""
    streams = {
        task.task_id: (task.job_version_id, task.stream_key) for task in evidence.tasks if task.stream_key is not None
    }
    scopes = {task.task_id: task.scope_first for task in evidence.tasks}
    changes = sorted(evidence.task_changes, key=lambda change: change.seq)
    together = defaultdict(set)  # what one transaction ended has no order of its own
    for change in changes:
        if change.state in _PASSED:
            together[change.txid].add(change.task_id)
    waiting: dict[tuple[str, str | None], list[tuple[bytes, str]]] = defaultdict(list)
    passed: set[str] = set()
    for change in changes:
        stream = streams.get(change.task_id)
        if stream is None:
            continue
        if not change.before:
            heapq.heappush(waiting[stream], (scopes[change.task_id], change.task_id))
        if change.state not in _PASSED:
            continue
        passed |= together[change.txid]
        line = waiting[stream]
        while line and line[0][1] in passed:
            heapq.heappop(line)
        if change.state == "succeeded" and line and line[0][0] < scopes[change.task_id]:
            yield f"task {change.task_id} of an ordered job succeeded before task {line[0][1]}, which precedes it"


def what_is_complete_stays_so(evidence: Evidence) -> Iterator[str]:
    """W1: a watermark never goes back, and no event appears at or below it afterwards, unless it takes the place of one
    of a lower revision that was there: the scope was run again. What a reader in another DAG makes may come later: a
    pointer that moves brings what it had not read."""
    moves: dict[str, list[WatermarkChange]] = defaultdict(list)
    for change in sorted(evidence.watermark_changes, key=lambda change: change.seq):
        keys = moves[change.version_id]
        if keys and change.cursor_key <= keys[-1].cursor_key:
            yield f"the watermark of dataset version {change.version_id} went back"
        else:
            keys.append(change)
    written = {row.id: row.seq for row in evidence.written if row.kind == "event"}
    before: dict[tuple[str, bytes], list[tuple[int, int]]] = defaultdict(list)
    for event in evidence.events:
        if event.event_id in written:
            before[event.place].append((_revision(event), written[event.event_id]))
    readers = {item.job_version_id for item in evidence.subscriptions if item.foreign}
    of_readers = {task.task_id for task in evidence.tasks if task.job_version_id in readers}
    for event in evidence.events:
        if not event.scope_last or event.event_id not in written or event.key.task_id in of_readers:
            continue
        if any(revision < _revision(event) and seq < written[event.event_id] for revision, seq in before[event.place]):
            continue
        keys = moves[event.version_id]
        index = bisect_left(keys, event.scope_last, key=lambda change: change.cursor_key)
        if index < len(keys) and keys[index].seq < written[event.event_id]:
            yield f"event {event.event_id} was accepted after the watermark had covered it"


def _revision(event: Event) -> int:
    return int(event.key.scope.rpartition(b"|")[2])


def no_cutover_takes_completeness_back(evidence: Evidence) -> Iterator[str]:
    """W2: who reads a dataset finds it complete up to where it was before the cutover."""
    changes = evidence.changes
    cutovers = {entry.txid for entry in changes.said if entry.method == "DagService.CutOverDag"}
    moves = sorted(evidence.watermark_changes, key=lambda change: change.seq)
    switches = SwitchesOverTime(changes)
    for activated in switches.of_dags().values():
        for before, after in pairwise(activated):
            if after.txid not in cutovers:
                continue
            keys = {move.version_id: move.cursor_key for move in moves if move.seq < after.seq}
            served = switches.served(after)
            for dataset, version in switches.served(before).items():
                now = keys.get(served.get(dataset, version), b"")
                if now < keys.get(version, b""):
                    yield f"{dataset} was complete up to less after deploy {after.deploy_number} than before"
