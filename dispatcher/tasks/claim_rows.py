"""Rows that a claim reads and writes: what a stream has next, what an attempt is given, and its lease.

Maps and never commits; each method is the statement of its name in claim.sql. The caller has locked the tasks and
streams, through `store`.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any

from psycopg.types.json import Jsonb

from dispatcher.db.rows import Connection, one_row, rows
from dispatcher.db.statements import Statements
from dispatcher.tasks.leases import LockedTask
from dispatcher.tasks.rows import (
    ClaimedRow,
    InputHead,
    JobSettings,
    RunCandidate,
)
from dispatcher.tasks.state import TaskState

_sql = Statements.load("dispatcher.tasks", "claim.sql")
_STATES = {state.value: state for state in TaskState}


async def run_candidates(
    connection: Connection, job_version_id: str, stream_key: str, limit: int
) -> list[RunCandidate]:
    return await rows(
        connection,
        _sql.run_candidates,
        RunCandidate,
        job_version_id=job_version_id,
        stream_key=stream_key,
        limit=limit,
    )


async def job_settings(connection: Connection, job_version_ids: set[str]) -> dict[str, JobSettings]:
    """By job version; those that no active DAG version has are absent."""
    if not job_version_ids:
        return {}
    found = await rows(connection, _sql.job_settings, JobSettings, job_version_ids=sorted(job_version_ids))
    return {row.job_version_id: row for row in found}


async def followed_tasks(connection: Connection, task_ids: Sequence[str]) -> dict[str, str]:
    """Those that are there because another version of a dataset of another DAG is served, with that dataset."""
    if not task_ids:
        return {}
    cursor = await connection.execute(_sql.followed_tasks, {"task_ids": list(task_ids)})
    return dict(await cursor.fetchall())


async def count_passed(connection: Connection, task_ids: Sequence[str]) -> None:
    """Notes at the inputs of ordered jobs how many of their scopes were passed by."""
    await connection.execute(_sql.count_passed, {"task_ids": list(task_ids)})


async def pass_late(connection: Connection, task_ids: Sequence[str], state: TaskState, reason: str) -> None:
    """Ends tasks that come too late for their stream; the caller holds its lock."""
    await connection.execute(_sql.pass_late, {"task_ids": list(task_ids), "state": state.value, "reason": reason})


async def input_heads(connection: Connection, job_version_ids: set[str]) -> list[InputHead]:
    if not job_version_ids:
        return []
    return await rows(connection, _sql.input_heads, InputHead, job_version_ids=sorted(job_version_ids))


async def lease_stream(
    connection: Connection, key: tuple[str, str], worker_id: str, request_id: str, token_digest: bytes, lease: timedelta
) -> int:
    """Answers the new epoch."""
    row = await one_row(
        connection,
        _sql.lease_stream,
        {
            "job_version_id": key[0],
            "stream_key": key[1],
            "worker_id": worker_id,
            "request_id": request_id,
            "token_digest": token_digest,
            "lease": lease,
        },
    )
    return int(row[0])


async def mark_claimed(
    connection: Connection,
    epochs: Mapping[str, int | None],
    pins: Mapping[str, list[dict[str, Any]]],
    worker_id: str,
    request_id: str,
    token_digest: bytes,
    lease: timedelta,
) -> None:
    """`epochs` by task, where None is a task of its own; `pins` by job version."""
    task_ids = sorted(epochs)
    await connection.execute(
        _sql.mark_claimed,
        {
            "task_ids": task_ids,
            "stream_epochs": [epochs[task_id] for task_id in task_ids],
            "job_version_ids": list(pins),
            "pins": [Jsonb(value) for value in pins.values()],
            "worker_id": worker_id,
            "request_id": request_id,
            "token_digest": token_digest,
            "lease": lease,
        },
    )


async def claimed(connection: Connection, task_ids: Sequence[str]) -> list[ClaimedRow]:
    """In scope order."""
    if not task_ids:
        return []
    return await rows(connection, _sql.claimed, ClaimedRow, task_ids=list(task_ids))


async def job_details(connection: Connection, settings: Sequence[JobSettings]) -> dict[str, bytes]:
    """Serialized JobDetails, by job version."""
    if not settings:
        return {}
    cursor = await connection.execute(
        _sql.job_details,
        {
            "dag_version_ids": [row.dag_version_id for row in settings],
            "job_version_ids": [row.job_version_id for row in settings],
        },
    )
    return dict(await cursor.fetchall())


async def spent_claims(connection: Connection, tasks: Iterable[LockedTask], request_id: str) -> set[str]:
    """The tasks of which the claim made an attempt that has ended; none that was never attempted is asked for."""
    attempted = [task.task_id for task in tasks if task.attempt > 0]
    if not attempted:
        return set()
    cursor = await connection.execute(_sql.spent_claims, {"task_ids": attempted, "request_id": request_id})
    return {row[0] for row in await cursor.fetchall()}
