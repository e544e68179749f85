"""Rows of what is reachable, condemned and named. Maps and never commits; each method is the statement of its name."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from dispatcher.collecting.orphans import FileKey, KeyFacts
from dispatcher.collecting.reach import SETTLING, Hold, Output, Use
from dispatcher.db.rows import Connection, one_row, rows
from dispatcher.db.statements import Statements

_sql = Statements.load("dispatcher.collecting")


@dataclass(frozen=True, slots=True)
class Judged:
    """A version, since when nothing has served it, and what holds it."""

    dataset_version_id: str
    dataset_id: str
    unused_since: datetime
    condemned_at: datetime | None
    hold: Hold | None


@dataclass(frozen=True, slots=True)
class Size:
    """What a version holds."""

    dataset_version_id: str
    file_count: int
    row_count: int
    size_bytes: int
    event_count: int


async def uses(connection: Connection) -> list[Use]:
    return await rows(connection, _sql.uses, Use)


async def now(connection: Connection) -> datetime:
    moment: datetime = (await one_row(connection, _sql.now, {}))[0]
    return moment


async def candidates(
    connection: Connection, window: Collection[str], dag: str | None, after: str | None, limit: int
) -> list[str]:
    cursor = await connection.execute(
        _sql.candidates,
        {"window": sorted(window), "dag": dag, "after": after, "limit": limit, "settling": SETTLING},
    )
    return [row[0] for row in await cursor.fetchall()]


async def outputs(connection: Connection, version_ids: Collection[str]) -> list[Output]:
    return await rows(connection, _sql.outputs, Output, version_ids=sorted(version_ids))


async def judged(connection: Connection, version_ids: Collection[str], window: Collection[str]) -> dict[str, Judged]:
    """By version. `window` are the DAG versions that a rollback may restore."""
    cursor = await connection.execute(
        _sql.judged, {"version_ids": sorted(version_ids), "window": sorted(window), "settling": SETTLING}
    )
    return {
        version_id: Judged(version_id, dataset_id, since, condemned_at, Hold(hold) if hold else None)
        for version_id, dataset_id, since, condemned_at, hold in await cursor.fetchall()
    }


async def abandoned_build(connection: Connection, dag: str) -> str | None:
    """A DAG version that is not being written any more."""
    cursor = await connection.execute(_sql.abandoned_build, {"dag": dag, "settling": SETTLING})
    row = await cursor.fetchone()
    return str(row[0]) if row else None


async def sizes(connection: Connection, version_ids: Sequence[str]) -> dict[str, Size]:
    found = await rows(connection, _sql.sizes, Size, version_ids=list(version_ids))
    return {row.dataset_version_id: row for row in found}


async def own_readers(connection: Connection, version_ids: Collection[str]) -> None:
    await connection.execute(_sql.own_readers, {"version_ids": sorted(version_ids)})


async def lock_versions(connection: Connection, version_ids: Collection[str]) -> None:
    await connection.execute(_sql.lock_versions, {"version_ids": sorted(version_ids)})


async def lock_pins(connection: Connection, version_ids: Collection[str]) -> None:
    await connection.execute(_sql.lock_pins, {"version_ids": sorted(version_ids)})


async def condemn(connection: Connection, version_ids: Collection[str], actor: str) -> dict[str, str]:
    """Datasets by version, of those that this call condemned."""
    cursor = await connection.execute(_sql.condemn, {"version_ids": sorted(version_ids), "actor": actor})
    return dict(await cursor.fetchall())


async def part_from_inputs(connection: Connection, version_ids: Collection[str]) -> None:
    """What was built on these versions is not taken up again."""
    await connection.execute(_sql.part_from_inputs, {"version_ids": sorted(version_ids)})


async def retire_jobs(connection: Connection, job_version_ids: Collection[str], actor: str) -> None:
    await connection.execute(_sql.retire_jobs, {"job_version_ids": sorted(job_version_ids), "actor": actor})


async def condemned_count(connection: Connection) -> int:
    (count,) = await one_row(connection, _sql.condemned_count, {})
    return int(count)


async def known_versions(connection: Connection, version_ids: Collection[str]) -> dict[str, bool]:
    """By version that is there, whether it is condemned."""
    cursor = await connection.execute(_sql.known_versions, {"version_ids": sorted(version_ids)})
    return dict(await cursor.fetchall())


async def key_facts(connection: Connection, keys: Sequence[FileKey]) -> Mapping[str, KeyFacts]:
    """By key."""
    found = await rows(
        connection,
        _sql.key_facts,
        KeyFacts,
        keys=[key.key for key in keys],
        version_ids=[key.dataset_version_id for key in keys],
        task_ids=[key.task_id for key in keys],
        attempts=[key.attempt for key in keys],
    )
    return {row.key: row for row in found}


async def begin_sweep(connection: Connection, every: timedelta) -> bool:
    """Whether it is this caller's to sweep now."""
    cursor = await connection.execute(_sql.begin_sweep, {"every": every})
    return await cursor.fetchone() is not None
