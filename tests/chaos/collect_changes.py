"""Gathers what is judged of changes: from the harness' own tables, the product's, the histories, and the store."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import psycopg

from dispatcher.db.statements import Statements
from kernel.artifacts import ArtifactStore
from tests.chaos.evidence_of_changes import (
    Activated,
    Activation,
    Call,
    ChangesSeen,
    Condemned,
    DagMove,
    Deleted,
    Head,
    Listened,
    PinChange,
    Read,
    RunChange,
    Said,
    Seen,
)
from tests.chaos.recorder import read_lines
from tests.chaos.workload import TAGGED_JOB
from traceapi.types.v1.dag_pb2 import DagSpec

_sql = Statements.load("tests.chaos", "collect_changes.sql")
METHODS = frozenset(
    {"DeployDag", "CutOverDag", "AbortDeployment", "RollbackDag", "BackfillJob", "ListUnusedVersions"}
    | {"CollectVersions", "CollectOrphans", "PinDatasets", "ResolveDatasets", "ReleasePin"}
)
"""Of people's calls, those that stand in `calls`."""
_REFUSED = frozenset({"FAILED_PRECONDITION", "NOT_FOUND", "INVALID_ARGUMENT", "ALREADY_EXISTS", "PERMISSION_DENIED"})


def collect_changes(
    connection: psycopg.Connection[Any], store: ArtifactStore | None, history: Path | None, now: float
) -> ChangesSeen:
    """Everything, in the transaction of the connection. `now`: in seconds since the epoch, for the ages of files."""
    found = ChangesSeen()
    found.moves = [DagMove(*row) for row in connection.execute(_sql.moves)]
    found.activated = [Activated(*row) for row in connection.execute(_sql.activated)]
    found.activations = [Activation(*row) for row in connection.execute(_sql.activations)]
    found.pointers = [(dataset, version) for dataset, version in connection.execute(_sql.pointers)]
    found.runs = [RunChange(*row) for row in connection.execute(_sql.runs)]
    found.said = [Said(*row) for row in connection.execute(_sql.said)]
    found.listened = [Listened(*row) for row in connection.execute(_sql.listened)]
    found.heads = [Head(*row) for row in connection.execute(_sql.heads)]
    found.jobs = {version: frozenset(jobs) for version, jobs in connection.execute(_sql.jobs)}
    found.datasets = dict(connection.execute(_sql.datasets).fetchall())
    found.outputs = {job: frozenset(versions) for job, versions in connection.execute(_sql.outputs)}
    found.tags = _tags(connection.execute(_sql.specs), found)
    found.condemned = [Condemned(*row) for row in connection.execute(_sql.condemned)]
    ((found.left,),) = connection.execute(_sql.left).fetchall()
    found.pinned = [(seq, pin, version) for seq, pin, version in connection.execute(_sql.pinned)]
    found.pins = [PinChange(*row) for row in connection.execute(_sql.pins)]
    if store is not None:
        found.stored = _stored(store, now)
    if history is not None:
        _read(found, history)
    return found


def _tags(specs: Iterable[tuple[str, bytes]], found: ChangesSeen) -> dict[str, str]:
    """The literal that the SQL of the tagged job selects, by the version of what it writes."""
    tags: dict[str, str] = {}
    for dag_version_id, spec in specs:
        job = DagSpec.FromString(spec).jobs.get(TAGGED_JOB)
        if job is not None and job.operator == "sql":
            (dataset,) = job.outputs
            version = found.datasets.get(dag_version_id, {}).get(dataset)
            if version is not None:
                tags[version] = str(job.config.fields["sql"].string_value).split("'")[1]
    return tags


def _stored(store: ArtifactStore, now: float) -> dict[str, float]:
    ages = {item.key: now - item.modified_at.timestamp() for item in store.list("data/") if item.modified_at}
    return ages | {f"~{write.name}": now - write.modified_at.timestamp() for write in store.unfinished()}


def _read(found: ChangesSeen, history: Path) -> None:
    began: dict[tuple[str, int], dict[str, Any]] = {}
    for line in read_lines(history):
        if "method" in line:
            began[line["process"], line["call"]] = line
        elif "call" in line and began.get((line["process"], line["call"]), {}).get("method") in METHODS:
            found.calls.append(_call(began.pop((line["process"], line["call"])), line))
        elif "read" in line:
            read = line["read"]
            tags = {version: frozenset(seen) for version, seen in read.pop("tags").items()}
            found.reads.append(Read(session=line["process"], tags=tags, lost=tuple(read.pop("lost")), **read))
        elif "seen" in line:
            found.noticed.append((line["deploy_number"], line["seen"]))
        for key, mark in line.get("files", ()):
            found.files.append(Seen(key, mark))
        for key, age in line.get("deleted", ()):
            found.deleted.append(Deleted(key, line["at"], age))
    never_heard = [line for line in began.values() if line["method"] in METHODS]
    found.calls += [Call(line["method"], line["began"], float("inf"), "unknown") for line in never_heard]
    found.calls.sort(key=lambda call: call.began)
    found.noticed.sort(key=lambda notice: notice[1])


def _call(began: dict[str, Any], ended: dict[str, Any]) -> Call:
    code = ended["code"]
    verdict = "ok" if code == "OK" else "refused" if code in _REFUSED else "unknown"
    return Call(
        began["method"], began["began"], ended["ended"], verdict, ended.get("reason", ""), ended.get("deploy_number", 0)
    )
