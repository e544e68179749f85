"""Rows of the registry: datasets, versions, manifests, bundles. Maps and never commits."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from dispatcher.datasets.rows import (
    ArtifactRow,
    Bounds,
    DatasetRow,
    KnownRow,
    LineageRow,
    PinnedRow,
    ScopeRow,
    TaskRead,
    Totals,
    VersionRow,
)
from dispatcher.db.pipeline import together
from dispatcher.db.rows import Connection, one_row, rows
from dispatcher.db.statements import Statements

_sql = Statements.load("dispatcher.datasets")
BEFORE_ALL = "00000000-0000-0000-0000-000000000000"
PAGE = 1000
"""Files or events of a manifest that one statement answers."""


async def known_datasets(connection: Connection) -> list[KnownRow]:
    return await rows(connection, _sql.known_datasets, KnownRow)


async def list_datasets(
    connection: Connection,
    *,
    dataset_id: str | None = None,
    dag: str | None = None,
    after: str | None = None,
    limit: int = 100,
) -> list[DatasetRow]:
    return await rows(
        connection, _sql.list_datasets, DatasetRow, dataset_id=dataset_id, dag=dag, after=after, limit=limit
    )


async def version_totals(connection: Connection, version_ids: Sequence[str]) -> dict[str, Totals]:
    found = await rows(connection, _sql.version_totals, Totals, version_ids=list(version_ids))
    return {row.dataset_version_id: row for row in found}


async def list_versions(connection: Connection, dataset_id: str, before: str | None, limit: int) -> list[VersionRow]:
    return await rows(connection, _sql.list_versions, VersionRow, dataset_id=dataset_id, before=before, limit=limit)


async def pin_now(connection: Connection, names: Sequence[str]) -> list[PinnedRow]:
    return await rows(connection, _sql.pin_now, PinnedRow, folded_ids=[name.casefold() for name in names])


async def pinned(connection: Connection, numbers: Mapping[str, int]) -> list[PinnedRow]:
    """`numbers` by dataset version."""
    return await rows(connection, _sql.pinned, PinnedRow, version_ids=list(numbers), numbers=list(numbers.values()))


async def served_at(connection: Connection, dataset_ids: Sequence[str], deploy_number: int) -> dict[str, int]:
    """Head numbers by dataset version."""
    cursor = await connection.execute(
        _sql.served_at, {"dataset_ids": list(dataset_ids), "deploy_number": deploy_number}
    )
    return {version_id: number for _, version_id, number in await cursor.fetchall()}


async def latest_deploy(connection: Connection) -> int:
    """The number of the last deploy; 0 before the first."""
    (number,) = await one_row(connection, _sql.latest_deploy, {})
    return int(number)


async def spelled(connection: Connection, names: Sequence[str]) -> dict[str, str]:
    """Dataset ids by the folded form of names."""
    cursor = await connection.execute(_sql.spelled, {"folded_ids": [name.casefold() for name in names]})
    return {folded: dataset_id for dataset_id, folded in await cursor.fetchall()}


async def insert_pin(
    connection: Connection,
    pin_id: str,
    actor: str,
    deploy_number: int,
    lease: timedelta,
    pins: Sequence[tuple[str, str, int]],
) -> tuple[datetime, int]:
    """`pins` are (dataset, version, number). Answers when the pin expires, and how many of them it holds: versions that
    were condemned meanwhile are not among them."""
    pin = {"pin_id": pin_id, "deploy_number": deploy_number, "actor": actor, "lease": lease}
    (expires_at,), held = await together(
        one_row(connection, _sql.insert_pin, pin), _insert_pin_datasets(connection, pin_id, pins)
    )
    return expires_at, held


async def _insert_pin_datasets(connection: Connection, pin_id: str, pins: Sequence[tuple[str, str, int]]) -> int:
    cursor = await connection.execute(
        _sql.insert_pin_datasets,
        {
            "pin_id": pin_id,
            "dataset_ids": [dataset_id for dataset_id, _, _ in pins],
            "version_ids": [version_id for _, version_id, _ in pins],
            "numbers": [number for _, _, number in pins],
        },
    )
    return len(await cursor.fetchall())


async def renew_pin(connection: Connection, pin_id: str, lease: timedelta) -> datetime | None:
    cursor = await connection.execute(_sql.renew_pin, {"pin_id": pin_id, "lease": lease})
    row = await cursor.fetchone()
    return row[0] if row else None


async def release_pin(connection: Connection, pin_id: str) -> None:
    await connection.execute(_sql.release_pin, {"pin_id": pin_id})


async def release_expired_pins(connection: Connection, limit: int) -> int:
    cursor = await connection.execute(_sql.release_expired_pins, {"limit": limit})
    return cursor.rowcount


async def visible_artifacts(
    connection: Connection, version_id: str, number: int, bounds: Bounds, after: ArtifactRow | None, limit: int = PAGE
) -> list[ArtifactRow]:
    """A page in scope order; shorter than `limit` on the last."""
    return await rows(
        connection,
        _sql.visible_artifacts,
        ArtifactRow,
        version_id=version_id,
        number=number,
        lower=bounds.lower,
        upper=bounds.upper,
        after_first=after.scope_first if after else b"",
        after_id=after.artifact_id if after else BEFORE_ALL,
        limit=limit,
    )


async def visible_events(
    connection: Connection, version_id: str, number: int, bounds: Bounds, after: ScopeRow | None, limit: int = PAGE
) -> list[ScopeRow]:
    """A page in scope order; shorter than `limit` on the last."""
    return await rows(
        connection,
        _sql.visible_events,
        ScopeRow,
        version_id=version_id,
        number=number,
        lower=bounds.lower,
        upper=bounds.upper,
        after_first=after.scope_first if after else b"",
        after_id=after.event_id if after else BEFORE_ALL,
        limit=limit,
    )


async def task_reads(connection: Connection, wanted: Sequence[tuple[str, str]]) -> dict[tuple[str, str], TaskRead]:
    """By (task, dataset); what the task's job does not read is not there."""
    found = await rows(
        connection,
        _sql.task_reads,
        TaskRead,
        task_ids=[task_id for task_id, _ in wanted],
        dataset_ids=[dataset_id for _, dataset_id in wanted],
    )
    return {(row.task_id, row.dataset_id): row for row in found}


async def lineage(connection: Connection) -> list[LineageRow]:
    return await rows(connection, _sql.lineage, LineageRow)


async def record_bundle(connection: Connection, digest: str, size_bytes: int, actor: str) -> None:
    await connection.execute(_sql.record_bundle, {"digest": digest, "size_bytes": size_bytes, "actor": actor})


async def known_bundles(connection: Connection, digests: Sequence[str]) -> set[str]:
    cursor = await connection.execute(_sql.known_bundles, {"digests": list(digests)})
    return {row[0] for row in await cursor.fetchall()}
