"""How far a version is, as rows: its jobs while it is being built, its watermarks, and its lag once it is active.

Maps and never commits. What they mean for a cutover says `readiness`.
"""

from dataclasses import dataclass

from dispatcher.db.rows import Connection, one_row, rows
from dispatcher.db.statements import Statements

_sql = Statements.load("dispatcher.deploy", "progress.sql")

_MOST_WAITING = 10_000
"""Tasks that are looked at for what a version left undone when it was replaced, and of a job for whether it is done."""


@dataclass(frozen=True, slots=True)
class StagedJobRow:
    """How far a job is that the staged version has and the active one lacks.

    `unfinished`: it has tasks to do that were caused before the barrier, or too many to tell; `open`: it has any task
    to do.
    """

    job: str
    job_version_id: str
    kind: str
    replaying: bool
    unfinished: bool
    open: bool
    dead_task_id: str | None


@dataclass(frozen=True, slots=True)
class StagedWatermarkRow:
    """A dataset that would get another version; its watermark there, and the one that is served: None where that has
    none, but events. `reading`: it comes of a source that only the staged version has, and that goes on."""

    dataset_id: str
    cursor_type: int
    former_cursor_type: int
    cursor_key: bytes | None
    former_key: bytes | None
    reading: bool

    @property
    def retyped(self) -> bool:
        """Its cursors have another type than those that are served."""
        return self.cursor_type != self.former_cursor_type


async def staged_jobs(connection: Connection, dag_version_id: str, *, locked: bool = False) -> list[StagedJobRow]:
    """By job. Where acceptance waits for the caller's locks, `locked`, no task is read to tell what was caused before
    the barrier: until it is known that the barrier was passed, a job that has any task to do is unfinished."""
    most = 0 if locked else _MOST_WAITING
    return await rows(connection, _sql.staged_jobs, StagedJobRow, dag_version_id=dag_version_id, most=most)


async def staged_watermarks(connection: Connection, dag_version_id: str) -> list[StagedWatermarkRow]:
    """By dataset."""
    return await rows(connection, _sql.staged_watermarks, StagedWatermarkRow, dag_version_id=dag_version_id)


async def owed_events(connection: Connection, dag_version_id: str) -> int:
    """How far the version is behind. Of what waits since it was replaced at most `_MOST_WAITING` are counted."""
    values = {"dag_version_id": dag_version_id, "most": _MOST_WAITING}
    return int((await one_row(connection, _sql.owed_events, values))[0])
