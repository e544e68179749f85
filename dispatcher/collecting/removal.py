"""How condemned versions go: files first, then rows, a page a transaction, the version itself last.

The order is what makes it safe to die anywhere: a row whose file is gone belongs to a version that nobody can read any
more, and a file whose row is gone is an orphan at worst. What is left is found again by the version's own row.

1. Artifacts, a page at a time: the files, then their rows.
2. Rows of every other kind, at most PAGE_ROWS a transaction, until there are none. Each transaction holds the version's
   row, so that of two dispatchers one removes and the other finds nothing to do.
3. Files that were stored for it and that no row ever named.
4. The job versions that wrote it and nothing else, and the version. From here on its fingerprint can be built anew.
"""

import asyncio
from dataclasses import dataclass
from itertools import islice

from dispatcher.audit import store as audit
from dispatcher.audit.entries import Action, Entry
from dispatcher.db.pool import Pool, single_statements, transaction
from dispatcher.db.rows import Connection, rows
from dispatcher.db.statements import Statements
from kernel.artifacts.store import ArtifactStore
from kernel.crash import crash

_sql = Statements.load("dispatcher.collecting", "removal.sql")

PAGE_ROWS = 5_000
PAGE_FILES = 1_000
# Three rows each.
_PAGE_JOBS = 1_000

_PAGED = (
    "remove_events",
    "remove_publications",
    "remove_served",
    "remove_readings",
    "forget_building",
    "forget_places",
    "remove_consumers",
    "remove_pins",
    "remove_dependencies",
    "remove_counts",
    "remove_states",
    "remove_reruns",
    "remove_streams",
    "remove_bindings",
    "remove_settings",
    "remove_subscriptions",
)
"""Statements that delete so many rows at most, once no task is left."""


@dataclass(frozen=True, slots=True)
class Condemned:
    """A version on its way out."""

    dataset_version_id: str
    dataset_id: str
    dag: str
    condemned_by: str


@dataclass(frozen=True, slots=True)
class FileRow:
    """A file that a condemned version still has."""

    artifact_id: str
    object_key: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Removed:
    """What one step removed."""

    files: int = 0
    size_bytes: int = 0
    rows: int = 0
    versions: int = 0

    def __add__(self, other: "Removed") -> "Removed":
        return Removed(
            self.files + other.files,
            self.size_bytes + other.size_bytes,
            self.rows + other.rows,
            self.versions + other.versions,
        )

    def __bool__(self) -> bool:
        return self != Removed()


class Remover:
    """Remembers nothing: any dispatcher goes on with what another has begun."""

    def __init__(self, pool: Pool, artifacts: ArtifactStore) -> None:
        self._pool = pool
        self._artifacts = artifacts

    async def step(self, actor: str) -> Removed:
        """One page of the version that was condemned first; falsy where nothing is left, or others are at it.

        TraceError where the store gives no answer.
        """
        skip = 0
        while (version := await self._next(skip)) is not None:
            if removed := await self._step_of(version, actor):
                return removed
            skip += 1
        return Removed()

    async def _next(self, skip: int) -> Condemned | None:
        async with single_statements(self._pool) as connection:
            found = await rows(connection, _sql.next_condemned, Condemned, skip=skip)
        return found[0] if found else None

    async def _step_of(self, version: Condemned, actor: str) -> Removed:
        if files := await self._file_page(version):
            return await self._remove_files(version, files)
        async with transaction(self._pool) as connection:
            if not await _alone(connection, version):
                return Removed()
            removed = await _remove_rows(connection, version)
            crash("collect.written")
        crash("collect.committed")
        if removed:
            return Removed(rows=removed)
        unnamed = await self._remove_unnamed(version)
        return unnamed + await self._finish(version, actor)

    async def _file_page(self, version: Condemned) -> list[FileRow]:
        async with single_statements(self._pool) as connection:
            return await rows(
                connection, _sql.file_page, FileRow, version_id=version.dataset_version_id, limit=PAGE_FILES
            )

    async def _remove_files(self, version: Condemned, files: list[FileRow]) -> Removed:
        await asyncio.to_thread(self._artifacts.delete, [file.object_key for file in files])
        crash("collect.files")
        async with transaction(self._pool) as connection:
            if not await _alone(connection, version):
                return Removed()
            cursor = await connection.execute(
                _sql.remove_artifacts,
                {"version_id": version.dataset_version_id, "artifact_ids": [file.artifact_id for file in files]},
            )
        return Removed(len(files), sum(file.size_bytes for file in files), cursor.rowcount)

    async def _remove_unnamed(self, version: Condemned) -> Removed:
        """No emit names them any more: its jobs are retired, and their epoch has moved on."""
        listing = self._artifacts.list(f"data/{version.dataset_version_id}/")
        removed = Removed()
        while found := await asyncio.to_thread(lambda: list(islice(listing, PAGE_FILES))):
            await asyncio.to_thread(self._artifacts.delete, [item.key for item in found])
            removed += Removed(len(found), sum(item.size_bytes for item in found))
        return removed

    async def _finish(self, version: Condemned, actor: str) -> Removed:
        async with transaction(self._pool) as connection:
            if not await _alone(connection, version):
                return Removed()
            removed, last = await _remove_outputs(connection, version)
            if last:
                await connection.execute(_sql.remove_head, {"version_id": version.dataset_version_id})
                await connection.execute(_sql.remove_version, {"version_id": version.dataset_version_id})
                await connection.execute(_sql.free_dataset, {"dataset_id": version.dataset_id})
                await _record(connection, version, actor)
            crash("collect.finished")
        return Removed(rows=removed, versions=int(last))


async def _record(connection: Connection, version: Condemned, actor: str) -> None:
    details = {
        "dataset_version_id": version.dataset_version_id,
        "condemned_by": version.condemned_by,
        "outcome": "removed",
    }
    await audit.record(connection, Entry(Action.COLLECT, actor, version.dataset_id, [version.dag], details))


async def _alone(connection: Connection, version: Condemned) -> bool:
    cursor = await connection.execute(_sql.take_alone, {"version_id": version.dataset_version_id})
    return await cursor.fetchone() is not None


async def _remove_rows(connection: Connection, version: Condemned) -> int:
    """At most PAGE_ROWS, of one kind after the other. Hot tasks come before finished ones: one that is just being moved
    is found behind."""
    removed = await _remove_tasks(connection, version) or await _remove_finished(connection, version)
    of = {"version_id": version.dataset_version_id}
    for name in () if removed else _PAGED:
        if removed < PAGE_ROWS:
            cursor = await connection.execute(_sql[name], {**of, "limit": PAGE_ROWS - removed})
            removed += int((await cursor.fetchall())[0][0]) if name == "remove_served" else cursor.rowcount
    if removed < PAGE_ROWS:
        removed += (await connection.execute(_sql.remove_watermark, of)).rowcount
    return removed


async def _remove_tasks(connection: Connection, version: Condemned) -> int:
    """A page of the tasks of its jobs, with their attempts."""
    cursor = await connection.execute(
        _sql.pick_tasks, {"version_id": version.dataset_version_id, "limit": PAGE_ROWS // 3}
    )
    picked = {"task_ids": [row[0] for row in await cursor.fetchall()]}
    if not picked["task_ids"]:
        return 0
    room = PAGE_ROWS - len(picked["task_ids"])
    attempts = await connection.execute(_sql.remove_attempts, {**picked, "limit": room})
    tasks = await connection.execute(_sql.remove_tasks, picked)
    return attempts.rowcount + tasks.rowcount


async def _remove_finished(connection: Connection, version: Condemned) -> int:
    """The same of those that were moved."""
    cursor = await connection.execute(
        _sql.pick_finished, {"version_id": version.dataset_version_id, "limit": PAGE_ROWS // 3}
    )
    found = await cursor.fetchall()
    if not found:
        return 0
    picked = {"task_ids": [row[0] for row in found], "finished_at": [row[1] for row in found]}
    attempts = await connection.execute(_sql.remove_finished_attempts, {**picked, "limit": PAGE_ROWS - len(found)})
    tasks = await connection.execute(_sql.remove_finished, picked)
    return attempts.rowcount + tasks.rowcount


async def _remove_outputs(connection: Connection, version: Condemned) -> tuple[int, bool]:
    """Job versions that write it; how many rows, and whether they were the last."""
    cursor = await connection.execute(
        _sql.remove_outputs, {"version_id": version.dataset_version_id, "limit": _PAGE_JOBS}
    )
    job_version_ids = [row[0] for row in await cursor.fetchall()]
    of = {"job_version_ids": job_version_ids}
    states = await connection.execute(_sql.remove_run_states, of)
    jobs = await connection.execute(_sql.remove_jobs, of)
    return len(job_version_ids) + states.rowcount + jobs.rowcount, len(job_version_ids) < _PAGE_JOBS
