"""Gathers the evidence: from the database, from the artifact store, and from the histories of the clients."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psycopg

from dispatcher.db.statements import Statements
from kernel.artifacts import ArtifactStore
from kernel.artifacts.store import StoredObject
from kernel.scopes import ScopeKind
from tests.chaos.collect_calls import add_call, place_bytes, read_calls, scope_bytes
from tests.chaos.collect_changes import collect_changes
from tests.chaos.evidence import (
    Artifact,
    Attempt,
    Bounds,
    Event,
    EventKey,
    Evidence,
    StreamChange,
    Subscription,
    Task,
    TaskChange,
    WatermarkChange,
    Written,
)
from tests.chaos.removed import without_what_was_collected

_sql = Statements.load("tests.chaos", "collect.sql")
_AUDIT = [Path(__file__).with_name(name) for name in ("audit.sql", "audit_changes.sql")]


def install_audit(conninfo: str, schema: str = "") -> None:
    """The harness' own triggers, into a database with the product's schema; and what a planted bug changes of that."""
    with psycopg.connect(conninfo) as connection:
        for path in _AUDIT:
            connection.execute(path.read_bytes())
        if schema:
            connection.execute(schema.encode())


def collect(
    conninfo: str, store: ArtifactStore | None, history: Path | None, bounds: Bounds, served_until: float | None = None
) -> Evidence:
    """Everything. Without a store no file is looked at; without a history there is none; where the harness has no
    triggers, what they would have seen is empty. At `served_until`, in seconds since the epoch, the programs were told
    to end: what becomes due later is done by nobody."""
    evidence = Evidence(bounds=bounds)
    with psycopg.connect(conninfo) as connection:
        connection.execute("set transaction isolation level repeatable read")
        evidence.now = served_until or _one(connection, "select extract(epoch from clock_timestamp())::float")
        evidence.tasks = [_task(row) for row in connection.execute(_sql.tasks)]
        evidence.moved_tasks = _one(connection, _sql.moved_tasks)
        evidence.attempts = [Attempt(*row) for row in connection.execute(_sql.attempts)]
        evidence.events = [_event(row) for row in connection.execute(_sql.events)]
        evidence.subscriptions = [Subscription(*row) for row in connection.execute(_sql.subscriptions)]
        artifacts = connection.execute(_sql.artifacts).fetchall()
        if _one(connection, _sql.audited):
            evidence.task_changes = [TaskChange(*row) for row in connection.execute(_sql.task_changes)]
            evidence.stream_changes = [StreamChange(*row) for row in connection.execute(_sql.stream_changes)]
            evidence.watermark_changes = [WatermarkChange(*row) for row in connection.execute(_sql.watermark_changes)]
            evidence.written = [Written(*row) for row in connection.execute(_sql.written)]
            evidence.changes = collect_changes(connection, store, history, evidence.now)
    gone = evidence.changes.gone
    evidence.artifacts = [_artifact(row, store) for row in artifacts if row[2] not in gone]
    for call in read_calls(history) if history is not None else ():
        add_call(evidence, call)
    return without_what_was_collected(evidence) if gone else evidence


def _one(connection: psycopg.Connection[Any], query: str) -> Any:
    row = connection.execute(query).fetchone()
    return row[0] if row else None


def _task(row: Sequence[Any]) -> Task:
    *facts, kind, last = row
    task = Task(*facts)
    return dataclasses.replace(task, place=place_bytes(kind, task.scope_first, last)) if kind is not None else task


def _event(row: Sequence[Any]) -> Event:
    event_id, dataset_id, task_id, kind, first, last, revision, *others = row
    key = EventKey(dataset_id, task_id, scope_bytes(kind, first, last, revision))
    return Event(event_id, key, b"" if kind == ScopeKind.PARTITION else last, *others)


def _artifact(row: Sequence[Any], store: ArtifactStore | None) -> Artifact:
    artifact_id, key, version_id, publication_id, sha256, size = row
    found = store.stat(key, digest=True) if store is not None else StoredObject(key, size, sha256)
    of = (found.sha256, size, found.size_bytes) if found is not None else (b"", size, 0)
    return Artifact(artifact_id, key, publication_id, sha256, found is not None, *of, version_id)
