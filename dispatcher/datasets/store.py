"""Rows of the registry: datasets, versions, manifests, bundles, audit. Maps and never commits."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from psycopg.types.json import Jsonb

from dispatcher.db.rows import Connection, one_row, rows
from dispatcher.db.statements import Statements

_sql = Statements.load("dispatcher.datasets")
BEFORE_ALL = "00000000-0000-0000-0000-000000000000"
PAGE = 1000
"""Files or events of a manifest that one statement answers."""


@dataclass(frozen=True, slots=True)
class KnownRow:
    """A dataset with the declaration that is served. `spec` is a serialized OutputSpec."""

    dataset_id: str
    dag: str
    dataset_version_id: str
    spec: bytes
    schema: dict[str, str] | None
    virtual_sql: str
    fingerprint: bytes
    dependencies: list[str]


@dataclass(frozen=True, slots=True)
class DatasetRow:
    """A dataset with its served version."""

    dataset_id: str
    dag: str
    dataset_version_id: str
    spec: bytes
    virtual_sql: str
    cursor_type: int
    schema: dict[str, str] | None
    created_at: datetime
    number: int
    watermark: bytes | None
    producer_jobs: list[str]


@dataclass(frozen=True, slots=True)
class VersionRow:
    """A dataset version."""

    dataset_version_id: str
    dataset_id: str
    cursor_type: int
    schema: dict[str, str] | None
    created_at: datetime
    number: int
    watermark: bytes | None


@dataclass(frozen=True, slots=True)
class Totals:
    """What a dataset version holds."""

    dataset_version_id: str
    event_count: int
    artifact_count: int
    row_count: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class PinnedRow:
    """A dataset at a version and number."""

    dataset_id: str
    dag: str
    dataset_version_id: str
    spec: bytes
    virtual_sql: str
    cursor_type: int
    schema: dict[str, str] | None
    number: int
    watermark: bytes | None
    deploy_number: int


@dataclass(frozen=True, slots=True)
class ArtifactRow:
    """A file of a manifest."""

    artifact_id: str
    dataset_id: str
    dataset_version_id: str
    cursor_type: int
    object_key: str
    producer_task_id: str
    scope_kind: int
    scope_first: bytes
    scope_last: bytes
    revision: int
    row_count: int
    size_bytes: int
    sha256: bytes
    schema_digest: bytes
    publication_number: int
    accepted_at: datetime


@dataclass(frozen=True, slots=True)
class ScopeRow:
    """An event of a manifest."""

    event_id: str
    dataset_id: str
    dataset_version_id: str
    cursor_type: int
    scope_kind: int
    scope_first: bytes
    scope_last: bytes
    revision: int
    producer_task_id: str
    producer_attempt: int
    artifact_id: str | None
    publication_number: int
    manifest: bytes | None
    event_time: datetime | None
    accepted_at: datetime


@dataclass(frozen=True, slots=True)
class TaskRead:
    """How a claimed task reads one of its inputs."""

    task_id: str
    dataset_id: str
    dataset_version_id: str
    lookback: int
    cursor_type: int
    stored: bool
    scope_kind: int | None
    scope_first: bytes | None
    scope_last: bytes | None
    number: int | None


@dataclass(frozen=True, slots=True)
class LineageRow:
    """A job makes one dataset from another."""

    from_dataset_id: str
    to_dataset_id: str
    dag: str
    job: str
    outdated: bool


@dataclass(frozen=True, slots=True)
class Bounds:
    """Keys of a dataset's scopes, both inclusive; as it is made, everything."""

    lower: bytes = b""
    upper: bytes = b"\xff" * 9  # beyond every key: those of numbers have 8 bytes, those of strings no 0xff


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


async def pin_now(connection: Connection, dataset_ids: Sequence[str]) -> list[PinnedRow]:
    return await rows(connection, _sql.pin_now, PinnedRow, dataset_ids=list(dataset_ids))


async def pinned(connection: Connection, numbers: Mapping[str, int]) -> list[PinnedRow]:
    """`numbers` by dataset version."""
    return await rows(connection, _sql.pinned, PinnedRow, version_ids=list(numbers), numbers=list(numbers.values()))


async def served_at(connection: Connection, dataset_ids: Sequence[str], deploy_number: int) -> dict[str, int]:
    """Head numbers by dataset version."""
    cursor = await connection.execute(
        _sql.served_at, {"dataset_ids": list(dataset_ids), "deploy_number": deploy_number}
    )
    return {version_id: number for _, version_id, number in await cursor.fetchall()}


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
) -> datetime:
    """`pins` are (dataset, version, number). Answers when the pin expires."""
    row = await one_row(
        connection,
        _sql.insert_pin,
        {"pin_id": pin_id, "deploy_number": deploy_number, "actor": actor, "lease": lease},
    )
    await connection.execute(
        _sql.insert_pin_datasets,
        {
            "pin_id": pin_id,
            "dataset_ids": [dataset_id for dataset_id, _, _ in pins],
            "version_ids": [version_id for _, version_id, _ in pins],
            "numbers": [number for _, _, number in pins],
        },
    )
    expires_at: datetime = row[0]
    return expires_at


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
    connection: Connection, version_id: str, number: int, bounds: Bounds, after: ArtifactRow | None
) -> list[ArtifactRow]:
    """A page in scope order; shorter than PAGE on the last."""
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
        limit=PAGE,
    )


async def visible_events(
    connection: Connection, version_id: str, number: int, bounds: Bounds, after: ScopeRow | None
) -> list[ScopeRow]:
    """A page in scope order; shorter than PAGE on the last."""
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
        limit=PAGE,
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


async def audit(connection: Connection, actor: str, method: str, subject: str, **details: Any) -> None:
    """Who did what, in the transaction that did it."""
    await connection.execute(
        _sql.audit, {"actor": actor, "method": method, "subject": subject, "details": Jsonb(details)}
    )
