"""Rows of tasks, streams and attempts.

Maps and never commits; each method is the statement of its name in queries.sql. A task that a call names and that is
not there may have been moved: who names it late gets the answer that its row would have given.
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import timedelta

from dispatcher.db.rows import Connection, rows
from dispatcher.db.statements import Statements
from dispatcher.tasks.finished import finished_attempts, finished_tasks
from dispatcher.tasks.leases import LeaseRef, LockedStream, LockedTask, StreamRef
from dispatcher.tasks.retries import ErrorClass, RetryPolicy
from dispatcher.tasks.rows import (
    Emitted,
    Ended,
    EndedAttempt,
    Extended,
    Standing,
    StateRow,
    TaskOwner,
)
from dispatcher.tasks.state import TaskState

_sql = Statements.load("dispatcher.tasks")
_STATES = {state.value: state for state in TaskState}


async def job_versions_of(connection: Connection, task_ids: Collection[str]) -> dict[str, TaskOwner]:
    if not task_ids:
        return {}
    found = await rows(connection, _sql.job_versions_of, TaskOwner, task_ids=list(task_ids))
    owners = {row.task_id: row for row in found}
    if missing := set(task_ids) - owners.keys():
        moved = await finished_tasks(connection, missing)
        owners |= {id_: TaskOwner(id_, task.job_version_id, task.stream_key) for id_, task in moved.items()}
    return owners


async def lock_streams(
    connection: Connection, keys: set[tuple[str, str]], *, ensure: bool = False
) -> dict[tuple[str, str], LockedStream]:
    """Locks streams; with `ensure` makes the rows that do not exist yet."""
    if not keys:
        return {}
    names = sorted(keys)
    parameters = {"job_version_ids": [job for job, _ in names], "stream_keys": [stream for _, stream in names]}
    if ensure:
        await connection.execute(_sql.ensure_streams, parameters)
    found = await rows(connection, _sql.lock_streams, LockedStream, **parameters)
    return {row.key: row for row in found}


async def lock_tasks(connection: Connection, task_ids: set[str]) -> dict[str, LockedTask]:
    if not task_ids:
        return {}
    return await _locked(connection, _sql.lock_tasks, task_ids)


async def read_tasks(connection: Connection, task_ids: set[str]) -> dict[str, LockedTask]:
    """Without locks: a verdict on these rows is only good for a call that changes nothing."""
    if not task_ids:
        return {}
    return await _locked(connection, _sql.read_tasks, task_ids)


async def _locked(connection: Connection, statement: str, task_ids: set[str]) -> dict[str, LockedTask]:
    """The database answers text, rules compare members: so the second column is made one."""
    cursor = await connection.execute(statement, {"task_ids": sorted(task_ids)})
    found = {task_id: LockedTask(task_id, _STATES[state], *rest) for task_id, state, *rest in await cursor.fetchall()}
    if missing := task_ids - found.keys():  # also one that was moved while its lock was waited for
        found |= await finished_tasks(connection, missing)
    return found


async def fan_outs(connection: Connection, task_ids: set[str]) -> dict[str, int]:
    """Consumers per event, at most, by task."""
    cursor = await connection.execute(_sql.fan_outs, {"task_ids": sorted(task_ids)})
    return dict(await cursor.fetchall())


async def run_members(connection: Connection, stream: LockedStream) -> list[str]:
    cursor = await connection.execute(
        _sql.run_members,
        {"job_version_id": stream.job_version_id, "stream_key": stream.stream_key, "epoch": stream.epoch},
    )
    return [row[0] for row in await cursor.fetchall()]


async def operator_states(connection: Connection, keys: set[tuple[str, str]]) -> dict[tuple[str, str], StateRow]:
    if not keys:
        return {}
    names = sorted(keys)
    found = await rows(
        connection,
        _sql.operator_states,
        StateRow,
        job_version_ids=[job for job, _ in names],
        stream_keys=[stream for _, stream in names],
    )
    return {(row.job_version_id, row.stream_key): row for row in found}


async def retry_policies(connection: Connection, job_version_ids: set[str]) -> dict[str, RetryPolicy]:
    if not job_version_ids:
        return {}
    cursor = await connection.execute(_sql.retry_policies, {"job_version_ids": sorted(job_version_ids)})
    return {row[0]: RetryPolicy(*row[1:]) for row in await cursor.fetchall()}


async def failures_of_class(connection: Connection, failing: Sequence[tuple[LockedTask, ErrorClass]]) -> dict[str, int]:
    """How often each has failed with this class before, by task; nothing of those that never have."""
    again = [(task, error_class) for task, error_class in failing if task.failed_attempts > 0]
    if not again:
        return {}
    cursor = await connection.execute(
        _sql.failures_of_class,
        {
            "task_ids": [task.task_id for task, _ in again],
            "error_classes": [error_class.value for _, error_class in again],
            "counts": [task.failed_attempts for task, _ in again],
        },
    )
    return dict(await cursor.fetchall())


async def record_ends(connection: Connection, ends: Sequence[Ended], emitted: Mapping[str, Emitted]) -> None:
    """Writes the transitions and the attempts' rows; the caller holds the tasks' locks. `emitted` is by task, where
    there is something of it that is not written yet."""
    if not ends:
        return
    ends = sorted(ends, key=lambda end: end.task.task_id)
    emits = [emitted.get(end.task.task_id) for end in ends]
    await connection.execute(
        _sql.record_ends,
        {
            "running": TaskState.RUNNING.value,
            "task_ids": [end.task.task_id for end in ends],
            "states": [end.state.value for end in ends],
            "failed": [end.failed for end in ends],
            "lost": [end.lost for end in ends],
            "waits": [end.wait for end in ends],
            "reasons": [end.reason for end in ends],
            "outcomes": [end.outcome for end in ends],
            "error_classes": [end.error_class for end in ends],
            "messages": [end.message for end in ends],
            "tracebacks": [end.traceback for end in ends],
            "usages": [end.usage for end in ends],
            "accepted": [emit.accepted if emit is not None else None for emit in emits],
            "differs": [emit is not None and emit.differs for emit in emits],
        },
    )


async def advance_streams(connection: Connection, task_ids: Sequence[str]) -> None:
    """The streams of these tasks have done their scopes; the caller holds the streams' locks."""
    if task_ids:
        await connection.execute(_sql.advance_streams, {"task_ids": list(task_ids)})


async def free_streams(connection: Connection, keys: set[tuple[str, str]]) -> None:
    if keys:
        names = sorted(keys)
        await connection.execute(
            _sql.free_streams,
            {"job_version_ids": [job for job, _ in names], "stream_keys": [stream for _, stream in names]},
        )


async def ended_attempts(connection: Connection, leases: Sequence[LeaseRef]) -> dict[tuple[str, int], EndedAttempt]:
    if not leases:
        return {}
    found = await rows(
        connection,
        _sql.ended_attempts,
        EndedAttempt,
        task_ids=[lease.task_id for lease in leases],
        attempts=[lease.attempt for lease in leases],
    )
    ended = {(row.task_id, row.attempt): row for row in found}
    if missing := [lease for lease in leases if (lease.task_id, lease.attempt) not in ended]:
        ended |= {(row.task_id, row.attempt): row for row in await finished_attempts(connection, missing)}
    return ended


async def extend_leases(
    connection: Connection, leases: Sequence[LeaseRef], progresses: Sequence[bytes | None], lease: timedelta
) -> dict[LeaseRef, Extended]:
    """Answers those that were extended; a worker may name several leases of one task."""
    if not leases:
        return {}
    cursor = await connection.execute(
        _sql.extend_leases,
        {
            "task_ids": [ref.task_id for ref in leases],
            "attempts": [ref.attempt for ref in leases],
            "token_digests": [ref.token_digest for ref in leases],
            "progresses": list(progresses),
            "lease": lease,
        },
    )
    return {LeaseRef(*row[:3]): Extended(*row[3:]) for row in await cursor.fetchall()}


async def extend_streams(
    connection: Connection, streams: Sequence[StreamRef], token_digests: Sequence[bytes], lease: timedelta
) -> dict[tuple[StreamRef, bytes], Extended]:
    """Answers those that were extended, by stream and token."""
    if not streams:
        return {}
    cursor = await connection.execute(
        _sql.extend_streams,
        {
            "job_version_ids": [ref.job_version_id for ref in streams],
            "stream_keys": [ref.stream_key for ref in streams],
            "epochs": [ref.epoch for ref in streams],
            "token_digests": list(token_digests),
            "lease": lease,
        },
    )
    return {(StreamRef(*row[:3]), row[3]): Extended(row[4]) for row in await cursor.fetchall()}


async def note_progress(connection: Connection, told: Sequence[tuple[LeaseRef, bytes]]) -> None:
    """Of tasks of runs; the caller holds the streams' locks. What is of another attempt by now is left out."""
    if told:
        await connection.execute(
            _sql.note_progress,
            {
                "task_ids": [lease.task_id for lease, _ in told],
                "attempts": [lease.attempt for lease, _ in told],
                "token_digests": [lease.token_digest for lease, _ in told],
                "progresses": [progress for _, progress in told],
            },
        )


async def standing(connection: Connection, task_ids: Sequence[str]) -> dict[str, Standing]:
    if not task_ids:
        return {}
    found = await rows(connection, _sql.standing, Standing, task_ids=list(task_ids))
    standings = {row.task_id: row for row in found}
    if missing := set(task_ids) - standings.keys():
        moved = await finished_tasks(connection, missing)
        standings |= {task_id: Standing.of_finished(task) for task_id, task in moved.items()}
    return standings


async def expired_tasks(connection: Connection, limit: int) -> set[str]:
    cursor = await connection.execute(_sql.expired_tasks, {"limit": limit})
    return {row[0] for row in await cursor.fetchall()}


async def expired_streams(connection: Connection, limit: int) -> list[LockedStream]:
    return await rows(connection, _sql.expired_streams, LockedStream, limit=limit)


async def end_backoffs(connection: Connection, limit: int) -> int:
    cursor = await connection.execute(_sql.end_backoffs, {"limit": limit})
    return len(await cursor.fetchall())
