"""Heartbeats: extending leases, and telling workers what to do with each task.

Owns its transaction's steps, not its commit.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from dispatcher.db.rows import Connection
from dispatcher.tasks import store
from dispatcher.tasks.leases import LeaseRef, StreamRef, attempt_fence, fence
from dispatcher.tasks.rows import Standing

_PAUSED = "its job or its DAG is paused"


class Directive(StrEnum):
    """As DIRECTIVE_* of the contract."""

    CONTINUE = "continue"
    CANCEL = "cancel"
    LEASE_LOST = "lease_lost"
    RETURN = "return"


@dataclass(frozen=True, slots=True)
class Beat:
    """One lease to extend; of a run, any of its tasks with the stream. `progress` is the task's, None for no news."""

    lease: LeaseRef
    stream: StreamRef | None
    progress: bytes | None


@dataclass(frozen=True, slots=True)
class BeatResult:
    """What to do with the task."""

    task_id: str
    directive: Directive
    lease_until: datetime | None = None
    reason: str = ""


async def beat(connection: Connection, beats: Sequence[Beat], lease: timedelta) -> list[BeatResult]:
    """One answer per beat, in order: one statement for all streams, one for all tasks of their own. What a beat of a
    run tells is of the task that it names, whose stream is locked by then."""
    runs = [(item, item.stream) for item in beats if item.stream is not None]
    own = [item for item in beats if item.stream is None]
    streams = await store.extend_streams(
        connection, [stream for _, stream in runs], [item.lease.token_digest for item, _ in runs], lease
    )
    told = [
        (item.lease, item.progress)
        for item, stream in runs
        if item.progress is not None and (stream, item.lease.token_digest) in streams
    ]
    await store.note_progress(connection, told)
    tasks = await store.extend_leases(connection, [item.lease for item in own], [item.progress for item in own], lease)
    lost = [item.lease.task_id for item in own if item.lease not in tasks]
    lost += [item.lease.task_id for item, stream in runs if (stream, item.lease.token_digest) not in streams]
    standing = await store.standing(connection, lost)
    results: list[BeatResult] = []
    for item in beats:
        task_id = item.lease.task_id
        token = item.lease.token_digest
        extended = tasks.get(item.lease) if item.stream is None else streams.get((item.stream, token))
        if extended is None:
            results.append(_without_lease(item.lease, standing.get(task_id)))
        elif extended.paused:
            results.append(BeatResult(task_id, Directive.RETURN, extended.until, _PAUSED))
        else:
            results.append(BeatResult(task_id, Directive.CONTINUE, extended.until))
    return results


def _without_lease(lease: LeaseRef, standing: Standing | None) -> BeatResult:
    if standing is None:
        return BeatResult(lease.task_id, Directive.LEASE_LOST, reason="the task does not exist")
    if standing.state == "canceled":
        return BeatResult(lease.task_id, Directive.CANCEL, reason=standing.reason)
    fenced = fence(standing.run_state)
    if (standing.attempt, standing.lease_token_digest) == (lease.attempt, lease.token_digest):
        if standing.cancel_reason is not None:
            return BeatResult(lease.task_id, Directive.CANCEL, reason=standing.cancel_reason)
        fenced = attempt_fence(standing.run_state, standing.job_epoch, standing.run_epoch)
    if fenced is not None:
        return BeatResult(lease.task_id, Directive.CANCEL, reason=fenced)
    return BeatResult(lease.task_id, Directive.LEASE_LOST, reason=f"the task is {standing.state}")
