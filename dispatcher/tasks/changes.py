"""What people do to tasks, by id or by filter: cancel, retry, skip. Maps and never commits."""

from collections.abc import Collection, Sequence, Set

from dispatcher.db.rows import Connection, one_row
from dispatcher.db.statements import Statements
from dispatcher.tasks.rows import TaskQuery
from dispatcher.tasks.state import TaskState

_sql = Statements.load("dispatcher.tasks", "changes.sql")


async def retry_dead(connection: Connection, query: TaskQuery, task_ids: Sequence[str] | None) -> list[str]:
    """Queues DEAD tasks again; answers those that it took."""
    taken = await _dead(connection, query, task_ids)
    cursor = await connection.execute(_sql.retry, {"task_ids": taken})
    return sorted(row[0] for row in await cursor.fetchall())


async def skip_dead(connection: Connection, query: TaskQuery, task_ids: Sequence[str] | None, reason: str) -> list[str]:
    """Passes over DEAD tasks; answers those that it took."""
    taken = await _dead(connection, query, task_ids)
    cursor = await connection.execute(_sql.skip, {"task_ids": taken, "reason": reason})
    return sorted(row[0] for row in await cursor.fetchall())


async def _dead(connection: Connection, query: TaskQuery, task_ids: Sequence[str] | None) -> list[str]:
    if query.states and TaskState.DEAD not in query.states:
        return []
    cursor = await connection.execute(_sql.dead_tasks, _filter(query, task_ids))
    return [row[0] for row in await cursor.fetchall()]


def _values(states: Collection[TaskState] | None) -> list[str] | None:
    return sorted(state.value for state in states) if states is not None else None


def _filter(query: TaskQuery, task_ids: Sequence[str] | None) -> dict[str, object]:
    return {
        "task_ids": list(task_ids) if task_ids else None,
        "states": _values(query.states),
        "after": query.after,
        "dag": query.dag,
        "job": query.job,
        "first": query.first,
        "last": query.last,
        "limit": query.limit,
    }


async def count_matching(
    connection: Connection, query: TaskQuery, task_ids: Sequence[str] | None, states: Set[TaskState]
) -> int:
    """How many tasks in one of `states` the query finds."""
    chosen = _values(states & set(query.states) if query.states else states)
    row = await one_row(connection, _sql.count_matching, {**_filter(query, task_ids), "states": chosen})
    return int(row[0])


async def cancelable_tasks(connection: Connection, query: TaskQuery, task_ids: Sequence[str] | None) -> list[str]:
    """In the order of their ids; nothing is locked."""
    cursor = await connection.execute(_sql.cancelable_tasks, _filter(query, task_ids))
    return [row[0] for row in await cursor.fetchall()]


async def cancel(connection: Connection, task_ids: Sequence[str], reason: str) -> None:
    if task_ids:
        await connection.execute(_sql.cancel, {"task_ids": list(task_ids), "reason": reason})


async def request_cancel(connection: Connection, task_ids: Sequence[str], reason: str) -> None:
    if task_ids:
        await connection.execute(_sql.request_cancel, {"task_ids": list(task_ids), "reason": reason})


async def stop_streams(connection: Connection, keys: set[tuple[str, str]], reason: str) -> None:
    if keys:
        names = sorted(keys)
        await connection.execute(
            _sql.stop_streams,
            {
                "job_version_ids": [job for job, _ in names],
                "stream_keys": [stream for _, stream in names],
                "reason": reason,
            },
        )


async def dags_of(connection: Connection, task_ids: Sequence[str]) -> list[str]:
    """Of tasks that are in the hot table, as those are that were changed just now."""
    cursor = await connection.execute(_sql.dags_of, {"task_ids": list(task_ids)})
    return [row[0] for row in await cursor.fetchall()]
