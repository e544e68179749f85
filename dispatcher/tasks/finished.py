"""Rows of finished tasks that have left the hot tables, and of the days that they are kept in.

Maps and never commits; each method is the statement of its name in finished.sql. Moved rows change no more: reading
them without a lock is as good as with one.
"""

from collections.abc import Collection, Sequence
from datetime import date, datetime, timedelta
from typing import NamedTuple

from dispatcher.db.rows import Connection, one_row, rows
from dispatcher.db.statements import Statements
from dispatcher.tasks.leases import LeaseRef, LockedTask
from dispatcher.tasks.rows import EndedAttempt
from dispatcher.tasks.state import TaskState

_sql = Statements.load("dispatcher.tasks", "finished.sql")

ALONE = 0x7472_6B65_6570  # an advisory lock of one key
_BEGINNING = "-infinity"


class PickedTask(NamedTuple):
    """A task that is to be moved into the partition of its day."""

    task_id: str
    finished_at: datetime
    day: date


async def keep_alone(connection: Connection) -> bool:
    """Whether this transaction is the only one that moves or drops, until its end."""
    (alone,) = await one_row(connection, _sql.keep_alone, {"key": ALONE})
    return bool(alone)


async def pick_finished(connection: Connection, age: timedelta, after: datetime | None, limit: int) -> list[PickedTask]:
    """Locks them. `after`: none that ended earlier is looked for."""
    return await rows(connection, _sql.pick_finished, PickedTask, age=age, after=after or _BEGINNING, limit=limit)


async def add_day(connection: Connection, day: date) -> None:
    await connection.execute(_sql.add_day, {"day": day})


async def move_attempts(connection: Connection, picked: Sequence[PickedTask], limit: int) -> int:
    """Answers how many were moved."""
    cursor = await connection.execute(
        _sql.move_attempts,
        {
            "task_ids": [task.task_id for task in picked],
            "finished_at": [task.finished_at for task in picked],
            "limit": limit,
        },
    )
    return cursor.rowcount


async def move_tasks(connection: Connection, picked: Sequence[PickedTask]) -> int:
    """Those whose attempts were moved; answers how many."""
    (moved,) = await one_row(connection, _sql.move_tasks, {"task_ids": [task.task_id for task in picked]})
    return int(moved)


async def trim_attempts(connection: Connection, days: int, limit: int) -> int:
    """Of sources' runs that go on; answers how many went."""
    cursor = await connection.execute(_sql.trim_attempts, {"days": days, "limit": limit})
    return cursor.rowcount


async def limit_lock_wait(connection: Connection, wait: timedelta) -> None:
    await connection.execute(_sql.limit_lock_wait, {"wait": f"{round(wait.total_seconds() * 1000)}ms"})


async def add_days_ahead(connection: Connection) -> None:
    await connection.execute(_sql.add_days_ahead)


async def oldest_day_to_drop(connection: Connection, days: int) -> date | None:
    cursor = await connection.execute(_sql.oldest_day_to_drop, {"days": days})
    row = await cursor.fetchone()
    return row[0] if row else None


async def drop_day(connection: Connection, day: date) -> None:
    await connection.execute(_sql.drop_day, {"day": day})


async def finished_tasks(connection: Connection, task_ids: Collection[str]) -> dict[str, LockedTask]:
    """As a call judges them that names them late; without a lease, none of them can be changed."""
    cursor = await connection.execute(_sql.finished_tasks, {"task_ids": sorted(task_ids)})
    return {task_id: LockedTask(task_id, TaskState(state), *rest) for task_id, state, *rest in await cursor.fetchall()}


async def finished_attempts(connection: Connection, leases: Sequence[LeaseRef]) -> list[EndedAttempt]:
    return await rows(
        connection,
        _sql.finished_attempts,
        EndedAttempt,
        task_ids=[lease.task_id for lease in leases],
        attempts=[lease.attempt for lease in leases],
    )
