"""Gathers the evidence: from the database, from the artifact store, and from the histories of the clients."""

import base64
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from dispatcher.db.statements import Statements
from kernel.artifacts import ArtifactStore
from kernel.artifacts.store import StoredObject
from kernel.scopes import ScopeKind, scope_key
from tests.chaos.collect_changes import collect_changes
from tests.chaos.evidence import (
    NEVER,
    Artifact,
    Attempt,
    Bounds,
    Cancel,
    Claim,
    Emitted,
    Event,
    EventKey,
    Evidence,
    StreamChange,
    Subscription,
    Task,
    TaskChange,
    Verdict,
    WatermarkChange,
    Write,
    Written,
)
from tests.chaos.recorder import read_lines
from tests.chaos.removed import without_what_was_collected
from traceapi.control.v1 import task_service_pb2 as control_pb
from traceapi.types.v1.errors_pb2 import ErrorReason, ItemError
from traceapi.types.v1.scope_pb2 import Scope
from traceapi.types.v1.task_pb2 import TaskLease, TaskState
from traceapi.worker.v1 import worker_service_pb2 as pb
from traceapi.worker.v1.completion_pb2 import CompleteItem, CompleteTaskResult
from traceapi.worker.v1.emit_pb2 import EmitItem, EmitResult

_sql = Statements.load("tests.chaos", "collect.sql")
_AUDIT = [Path(__file__).with_name(name) for name in ("audit.sql", "audit_changes.sql")]
MESSAGES: dict[str, tuple[Any, Any]] = {
    "ClaimTasks": (pb.ClaimTasksRequest, pb.ClaimTasksResponse),
    "Heartbeat": (pb.HeartbeatRequest, pb.HeartbeatResponse),
    "EmitEvents": (pb.EmitEventsRequest, pb.EmitEventsResponse),
    "CompleteTasks": (pb.CompleteTasksRequest, pb.CompleteTasksResponse),
    "SettleTasks": (pb.SettleTasksRequest, pb.SettleTasksResponse),
    "CancelTasks": (control_pb.CancelTasksRequest, control_pb.CancelTasksResponse),
}


@dataclass(frozen=True, slots=True)
class Call:
    """One call of the history. `response` is None where it failed, or where nobody knows."""

    process: str
    method: str
    began: float
    ended: float
    code: str
    request: Any
    response: Any

    @property
    def unanswered(self) -> Verdict:
        """What a call without a response says of its items: a call that failed may have been done all the same."""
        return "refused" if self.code in ("INVALID_ARGUMENT", "UNAUTHENTICATED", "PERMISSION_DENIED") else "unknown"


def install_audit(conninfo: str, schema: str = "") -> None:
    """The harness' own triggers, into a database with the product's schema; and what a planted bug changes of that."""
    with psycopg.connect(conninfo) as connection:
        for path in _AUDIT:
            connection.execute(path.read_bytes())
        if schema:
            connection.execute(schema.encode())


def collect(conninfo: str, store: ArtifactStore | None, history: Path | None, bounds: Bounds) -> Evidence:
    """Everything. Without a store no file is looked at; without a history there is none; where the harness has no
    triggers, what they would have seen is empty."""
    evidence = Evidence(bounds=bounds)
    with psycopg.connect(conninfo) as connection:
        connection.execute("set transaction isolation level repeatable read")
        evidence.now = _one(connection, "select extract(epoch from clock_timestamp())::float")
        evidence.tasks = [Task(*row) for row in connection.execute(_sql.tasks)]
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
            evidence.changes = collect_changes(connection, store, history)
    gone = evidence.changes.gone
    evidence.artifacts = [_artifact(row, store) for row in artifacts if row[2] not in gone]
    for call in read_calls(history) if history is not None else ():
        _add(evidence, call)
    return without_what_was_collected(evidence) if gone else evidence


def read_calls(folder: Path) -> list[Call]:
    """All calls, in the order in which they began."""
    began: dict[tuple[str, int], dict[str, Any]] = {}
    ended: dict[tuple[str, int], dict[str, Any]] = {}
    for line in read_lines(folder):
        if "call" in line:
            (began if "began" in line else ended)[line["process"], line["call"]] = line
    judged = {key: line for key, line in began.items() if line["method"] in MESSAGES}
    return sorted((_call(line, ended.get(key, {})) for key, line in judged.items()), key=lambda call: call.began)


def _call(began: dict[str, Any], ended: dict[str, Any]) -> Call:
    request, response = MESSAGES[began["method"]]
    return Call(
        began["process"],
        began["method"],
        began["began"],
        ended.get("ended", NEVER),
        ended.get("code", ""),
        request.FromString(base64.b64decode(began["request"])),
        response.FromString(base64.b64decode(ended["response"])) if "response" in ended else None,
    )


def _one(connection: psycopg.Connection[Any], query: str) -> Any:
    row = connection.execute(query).fetchone()
    return row[0] if row else None


def _event(row: Sequence[Any]) -> Event:
    event_id, dataset_id, task_id, kind, first, last, revision, *others = row
    key = EventKey(dataset_id, task_id, _scope_bytes(kind, first, last, revision))
    return Event(event_id, key, b"" if kind == ScopeKind.PARTITION else last, *others)


def _scope_bytes(kind: int, first: bytes, last: bytes, revision: int) -> bytes:
    return b"|".join((str(int(kind)).encode(), first, last, str(revision).encode()))


def _artifact(row: Sequence[Any], store: ArtifactStore | None) -> Artifact:
    artifact_id, key, version_id, publication_id, sha256, size = row
    found = store.stat(key, digest=True) if store is not None else StoredObject(key, size, sha256)
    of = (found.sha256, size, found.size_bytes) if found is not None else (b"", size, 0)
    return Artifact(artifact_id, key, publication_id, sha256, found is not None, *of, version_id)


def _add(evidence: Evidence, call: Call) -> None:
    if call.method == "ClaimTasks":
        evidence.claims += _claims(call)
    elif call.method == "Heartbeat":
        evidence.writes += _beats(call)
    elif call.method == "CancelTasks":
        evidence.cancels += _cancels(call)
    else:
        evidence.writes += _writes(call)


def _claims(call: Call) -> Iterator[Claim]:
    request = call.request
    digest = hashlib.sha256(request.lease_token).digest()
    facts = (digest, call.began, call.ended)
    if call.response is None:
        for task_id in request.task_ids:
            yield Claim(request.request_id, task_id, *facts, call.unanswered, process=call.process)
        return
    for result in call.response.results:
        if result.HasField("claimed"):
            yield Claim(request.request_id, result.task_id, *facts, "ok", result.claimed.attempt, process=call.process)
        elif result.HasField("error"):
            reason = _reason(result.error)
            yield Claim(request.request_id, result.task_id, *facts, "refused", 0, reason, call.process)
    for run in call.response.runs:
        for task in run.tasks:
            yield Claim(request.request_id, task.task_id, *facts, "ok", task.attempt, process=call.process)


def _beats(call: Call) -> Iterator[Write]:
    results = call.response.results if call.response is not None else [None] * len(call.request.items)
    for item, result in zip(call.request.items, results, strict=True):
        if result is None:
            yield _write("beat", call, item.lease, call.unanswered)
        else:
            directive = pb.Directive.Name(result.directive).removeprefix("DIRECTIVE_")
            yield _write("beat", call, item.lease, "ok" if directive == "CONTINUE" else "refused", reason=directive)


def _cancels(call: Call) -> Iterator[Cancel]:
    """The harness cancels one task a call, so that the count says of which."""
    (task_id,) = call.request.filter.task_ids
    if call.response is None:
        yield Cancel(task_id, call.began, call.ended, call.unanswered)
    else:
        yield Cancel(task_id, call.began, call.ended, "ok" if call.response.task_count else "refused")


def _writes(call: Call) -> Iterator[Write]:
    """Of emits and ends, whatever call they came with."""
    request, response = call.request, call.response
    emits = request.items if call.method == "EmitEvents" else request.emits if call.method == "SettleTasks" else ()
    ends = () if call.method == "EmitEvents" else request.items
    emit_results: Sequence[Any] = [None] * len(emits)
    end_results: Sequence[Any] = [None] * len(ends)
    if response is not None and call.method == "EmitEvents":
        emit_results = response.results
    elif response is not None:
        emit_results, end_results = response.emits if len(emits) else (), response.results
    for item, result in zip(emits, emit_results, strict=True):
        yield from _emits(call, item, result)
    for item, result in zip(ends, end_results, strict=True):
        yield _end(call, item, result)


def _emits(call: Call, item: EmitItem, result: EmitResult | None) -> Iterator[Write]:
    accepted = result is not None and result.HasField("accepted")
    by_task: dict[int, list[Emitted]] = {}
    for index, event in enumerate(item.events):
        key = EventKey(event.dataset_id, item.tasks[event.task_index].task_id, _scope(event.scope))
        answer = result.accepted.events[index] if accepted and result is not None else None
        emitted = Emitted(key, answer.event_id, answer.duplicate) if answer is not None else Emitted(key)
        by_task.setdefault(event.task_index, []).append(emitted)
    for index, lease in enumerate(item.tasks):
        events = tuple(by_task.get(index, ()))
        if result is None:
            yield _write("emit", call, lease, call.unanswered, events=events)
        elif accepted:
            yield _write("emit", call, lease, "ok", events=events)
        else:
            yield _write("emit", call, lease, "refused", reason=_reason(result.error), events=events)


def _end(call: Call, item: CompleteItem, result: CompleteTaskResult | None) -> Write:
    outcome = str(item.WhichOneof("outcome"))
    facts = {"outcome": outcome, "emitted": item.success.emitted_event_count}
    if result is None:
        return _write("end", call, item.lease, call.unanswered, **facts)
    if result.HasField("error"):
        return _write("end", call, item.lease, "refused", reason=_reason(result.error), **facts)
    state = TaskState.Name(result.state).removeprefix("TASK_STATE_").lower()
    return _write("end", call, item.lease, "ok", reason=state, **facts)


def _write(kind: Any, call: Call, lease: TaskLease, verdict: Verdict, **facts: Any) -> Write:
    digest = hashlib.sha256(lease.lease_token).digest()
    return Write(
        kind, lease.task_id, lease.attempt, digest, call.began, call.ended, verdict, process=call.process, **facts
    )


def _reason(error: ItemError) -> str:
    return ErrorReason.Name(error.reason).removeprefix("ERROR_REASON_")


def _scope(scope: Scope) -> bytes:
    key = scope_key(scope)
    return _scope_bytes(key.kind, key.first, key.last, key.revision)
