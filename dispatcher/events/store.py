"""Rows of events, artifacts, state and watermarks. Maps and never commits; each method is the statement of its name."""

from collections.abc import Mapping, Sequence

from psycopg.types.json import Jsonb

from dispatcher.db.rows import Connection, rows
from dispatcher.db.statements import Statements
from dispatcher.events.rows import (
    ArtifactInsert,
    DerivedWatermark,
    EventInsert,
    EventKey,
    EventPart,
    EventQuery,
    EventRow,
    ExistingArtifact,
    ExistingEvent,
    Extent,
    JobOutputRow,
    Span,
)
from dispatcher.events.values import NewArtifact
from dispatcher.tasks.rows import Emitted
from kernel.column_types import ordered_columns
from kernel.scopes import ScopeKey

_sql = Statements.load("dispatcher.events")

DAG_LOCK_CLASS = 0x7472  # advisory locks of two keys: this class, and the hash of the DAG's name


async def share_dags(connection: Connection, job_version_ids: set[str]) -> None:
    """Those of the job versions."""
    if not job_version_ids:
        return
    await connection.execute(_sql.share_dags, {"class": DAG_LOCK_CLASS, "job_version_ids": sorted(job_version_ids)})


async def job_outputs(connection: Connection, job_version_ids: set[str]) -> dict[str, dict[str, JobOutputRow]]:
    """By job version, by dataset_id."""
    if not job_version_ids:
        return {}
    found = await rows(connection, _sql.job_outputs, JobOutputRow, job_version_ids=sorted(job_version_ids))
    outputs: dict[str, dict[str, JobOutputRow]] = {}
    for row in found:
        outputs.setdefault(row.job_version_id, {})[row.dataset_id] = row
    return outputs


async def consumers(connection: Connection, job_version_ids: set[str]) -> dict[str, int]:
    """By dataset version that the job versions produce, where it has any."""
    if not job_version_ids:
        return {}
    cursor = await connection.execute(_sql.consumers, {"job_version_ids": sorted(job_version_ids)})
    return dict(await cursor.fetchall())


async def taken_spans(connection: Connection, spans: Mapping[Span, tuple[bytes, bytes]]) -> set[Span]:
    """`spans` are the smallest and the largest `first` of scopes. Answers those among which events stand."""
    if not spans:
        return set()
    asked = list(spans)
    cursor = await connection.execute(
        _sql.taken_spans,
        {
            "version_ids": [version_id for version_id, _ in asked],
            "task_ids": [task_id for _, task_id in asked],
            "firsts": [first for first, _ in spans.values()],
            "lasts": [last for _, last in spans.values()],
        },
    )
    return {asked[position - 1] for (position,) in await cursor.fetchall()}


async def existing_events(connection: Connection, keys: Sequence[EventKey]) -> dict[EventKey, ExistingEvent]:
    if not keys:
        return {}
    found = await rows(
        connection,
        _sql.existing_events,
        ExistingEvent,
        version_ids=[key.dataset_version_id for key in keys],
        task_ids=[key.task_id for key in keys],
        firsts=[key.scope.first for key in keys],
        lasts=[key.scope.last for key in keys],
        kinds=[int(key.scope.kind) for key in keys],
        revisions=[key.scope.revision for key in keys],
    )
    return {keys[row.position - 1]: row for row in found}


async def existing_artifacts(connection: Connection, object_keys: Sequence[str]) -> dict[str, ExistingArtifact]:
    if not object_keys:
        return {}
    found = await rows(connection, _sql.existing_artifacts, ExistingArtifact, object_keys=list(object_keys))
    return {row.object_key: row for row in found}


async def nearest_artifacts(connection: Connection, extents: Sequence[tuple[str, ScopeKey]]) -> dict[int, Extent]:
    """By index into `extents`, which are (dataset version, scope)."""
    if not extents:
        return {}
    found = await rows(
        connection,
        _sql.nearest_artifacts,
        Extent,
        version_ids=[version for version, _ in extents],
        firsts=[scope.first for _, scope in extents],
        lasts=[scope.last for _, scope in extents],
    )
    return {row.position - 1: row for row in found}


async def lock_unfrozen(connection: Connection, version_ids: set[str]) -> dict[str, bytes]:
    """Locks versions whose columns nobody had declared; answers those that a commit froze meanwhile."""
    if not version_ids:
        return {}
    cursor = await connection.execute(_sql.lock_unfrozen, {"version_ids": sorted(version_ids)})
    return {version_id: digest for version_id, digest in await cursor.fetchall() if digest is not None}


async def freeze_schemas(connection: Connection, schemas: Mapping[str, NewArtifact]) -> None:
    """By dataset version, the artifact whose columns it has from now on; the caller holds the versions' locks."""
    version_ids = sorted(schemas)
    await connection.execute(
        _sql.freeze_schemas,
        {
            "version_ids": version_ids,
            "schema_digests": [schemas[version_id].schema_digest for version_id in version_ids],
            "schemas": [Jsonb(dict(schemas[version_id].schema)) for version_id in version_ids],
            "column_orders": [_column_order(schemas[version_id]) for version_id in version_ids],
        },
    )


def _column_order(artifact: NewArtifact) -> Jsonb:
    return Jsonb(list(ordered_columns(artifact.schema, artifact.column_order)))


async def insert_artifacts(connection: Connection, publication_id: str, inserts: Sequence[ArtifactInsert]) -> None:
    await connection.execute(
        _sql.insert_artifacts,
        {
            "publication_id": publication_id,
            "artifact_ids": [item.artifact.artifact_id for item in inserts],
            "version_ids": [item.dataset_version_id for item in inserts],
            "object_keys": [item.artifact.object_key for item in inserts],
            "task_ids": [item.producer.task_id for item in inserts],
            "attempts": [item.producer.attempt for item in inserts],
            "kinds": [int(item.artifact.scope.kind) for item in inserts],
            "firsts": [item.artifact.scope.first for item in inserts],
            "lasts": [item.artifact.scope.last for item in inserts],
            "revisions": [item.artifact.scope.revision for item in inserts],
            "row_counts": [item.artifact.row_count for item in inserts],
            "sizes": [item.artifact.size_bytes for item in inserts],
            "sha256s": [item.artifact.sha256 for item in inserts],
            "schema_digests": [item.artifact.schema_digest for item in inserts],
        },
    )


async def remove_replaced(connection: Connection, publications: Mapping[str, str], artifact_ids: list[str]) -> None:
    """`publications` are this transaction's, by dataset version; `artifact_ids` what it added."""
    await connection.execute(
        _sql.remove_replaced,
        {
            "version_ids": list(publications),
            "publication_ids": list(publications.values()),
            "artifact_ids": artifact_ids,
        },
    )


async def insert_events(connection: Connection, publication_id: str, inserts: Sequence[EventInsert]) -> None:
    parts, numbers = _shared(inserts)
    scopes = [item.key.scope for item in inserts]
    await connection.execute(
        _sql.insert_events,
        {
            "publication_id": publication_id,
            "version_ids": [part.dataset_version_id for part in parts],
            "task_ids": [part.producer.task_id for part in parts],
            "attempts": [part.producer.attempt for part in parts],
            "kinds": [int(part.kind) for part in parts],
            "revisions": [part.revision for part in parts],
            "origins": [part.origin for part in parts],
            "parts": numbers,
            "event_ids": [item.event.event_id for item in inserts],
            "firsts": [scope.first for scope in scopes],
            "lasts": [scope.last if scope.last != scope.first else None for scope in scopes],
            "artifact_ids": [item.artifact_id for item in inserts],
            "digests": [item.payload_digest for item in inserts],
            "manifests": [item.event.manifest or None for item in inserts],
            "event_times": [item.event.event_time for item in inserts],
        },
    )


def _shared(inserts: Sequence[EventInsert]) -> tuple[list[EventPart], list[int]]:
    """What events have in common that follow each other, and for each event which of that, from 1."""
    parts: list[EventPart] = []
    numbers: list[int] = []
    last: tuple[object, ...] = ()
    for item in inserts:
        scope = item.key.scope
        part = item.key.dataset_version_id, item.producer, scope.kind, scope.revision, item.origin
        if part != last:
            last = part
            parts.append(EventPart(*part))
        numbers.append(len(parts))
    return parts, numbers


async def record_emits(connection: Connection, emitted: Mapping[str, Emitted]) -> None:
    """By producer."""
    if not emitted:
        return
    task_ids = sorted(emitted)
    await connection.execute(
        _sql.record_emits,
        {
            "task_ids": task_ids,
            "accepted": [emitted[task_id].accepted for task_id in task_ids],
            "differs": [emitted[task_id].differs for task_id in task_ids],
        },
    )


async def record_refusals(connection: Connection, task_ids: set[str]) -> None:
    if not task_ids:
        return
    await connection.execute(_sql.record_refusals, {"task_ids": sorted(task_ids)})


async def write_states(connection: Connection, states: Mapping[tuple[str, str], tuple[bytes, int]]) -> None:
    """By stream: the bytes and their version."""
    keys = sorted(states)
    await connection.execute(
        _sql.write_states,
        {
            "job_version_ids": [job for job, _ in keys],
            "stream_keys": [stream for _, stream in keys],
            "datas": [states[key][0] for key in keys],
            "versions": [states[key][1] for key in keys],
        },
    )


async def watermarks(connection: Connection, version_ids: set[str]) -> dict[str, bytes]:
    if not version_ids:
        return {}
    cursor = await connection.execute(_sql.watermarks, {"version_ids": sorted(version_ids)})
    return dict(await cursor.fetchall())


async def move_watermarks(connection: Connection, moves: Mapping[str, bytes]) -> int:
    """By dataset version. Answers how many moved."""
    if not moves:
        return 0
    version_ids = sorted(moves)
    cursor = await connection.execute(
        _sql.move_watermarks, {"version_ids": version_ids, "cursor_keys": [moves[version] for version in version_ids]}
    )
    return len(await cursor.fetchall())


async def publish(connection: Connection, numbered: Sequence[tuple[str, str, int]]) -> None:
    """`numbered` are (dataset version, publication, its new events), sorted."""
    await connection.execute(
        _sql.publish,
        {
            "version_ids": [version_id for version_id, _, _ in numbered],
            "publication_ids": [publication_id for _, publication_id, _ in numbered],
            "event_counts": [event_count for _, _, event_count in numbered],
        },
    )


async def overlapping_artifact(connection: Connection, artifact_ids: Sequence[str]) -> str | None:
    """The object key of a new artifact that overlaps a visible one in part."""
    cursor = await connection.execute(_sql.overlapping_artifacts, {"artifact_ids": list(artifact_ids)})
    row = await cursor.fetchone()
    return str(row[0]) if row else None


async def derived_watermarks(connection: Connection) -> list[DerivedWatermark]:
    return await rows(connection, _sql.derived_watermarks, DerivedWatermark)


async def find_events(connection: Connection, query: EventQuery) -> list[EventRow]:
    return await rows(
        connection,
        _sql.find_events,
        EventRow,
        dataset_id=query.dataset_id,
        first=query.first,
        last=query.last,
        before=query.before,
        limit=query.limit,
    )


async def events_of_task(connection: Connection, task_id: str, limit: int) -> list[EventRow]:
    return await rows(connection, _sql.events_of_task, EventRow, task_id=task_id, limit=limit)
