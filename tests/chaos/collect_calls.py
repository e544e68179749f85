"""What clients heard, from their histories: calls, and what of the evidence each of them is."""

import base64
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kernel.scopes import scope_key
from tests.chaos.evidence import (
    NEVER,
    Cancel,
    Claim,
    Emitted,
    EventKey,
    Evidence,
    Verdict,
    Write,
)
from tests.chaos.evidence_of_changes import Rerun
from tests.chaos.recorder import read_lines
from traceapi.control.v1 import source_service_pb2 as source_pb
from traceapi.control.v1 import task_service_pb2 as control_pb
from traceapi.types.v1.errors_pb2 import ErrorReason, ItemError
from traceapi.types.v1.scope_pb2 import Scope
from traceapi.types.v1.task_pb2 import TaskLease, TaskState
from traceapi.worker.v1 import worker_service_pb2 as pb
from traceapi.worker.v1.completion_pb2 import CompleteItem, CompleteTaskResult
from traceapi.worker.v1.emit_pb2 import EmitItem, EmitResult

MESSAGES: dict[str, tuple[Any, Any]] = {
    "ClaimTasks": (pb.ClaimTasksRequest, pb.ClaimTasksResponse),
    "Heartbeat": (pb.HeartbeatRequest, pb.HeartbeatResponse),
    "EmitEvents": (pb.EmitEventsRequest, pb.EmitEventsResponse),
    "CompleteTasks": (pb.CompleteTasksRequest, pb.CompleteTasksResponse),
    "SettleTasks": (pb.SettleTasksRequest, pb.SettleTasksResponse),
    "CancelTasks": (control_pb.CancelTasksRequest, control_pb.CancelTasksResponse),
    "BackfillJob": (source_pb.BackfillJobRequest, source_pb.BackfillJobResponse),
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


def scope_bytes(kind: int, first: bytes, last: bytes, revision: int) -> bytes:
    return place_bytes(kind, first, last) + b"|" + str(revision).encode()


def place_bytes(kind: int, first: bytes, last: bytes) -> bytes:
    """What a scope is about, whatever its revision."""
    return b"|".join((str(int(kind)).encode(), first, last))


def add_call(evidence: Evidence, call: Call) -> None:
    if call.method == "ClaimTasks":
        evidence.claims += _claims(call)
    elif call.method == "Heartbeat":
        evidence.writes += _beats(call)
    elif call.method == "CancelTasks":
        evidence.cancels += _cancels(call)
    elif call.method == "BackfillJob":
        made = None if call.response is None else int(call.response.task_count)
        evidence.changes.reruns.append(Rerun(call.request.request_id, made))
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
            extended = directive in ("CONTINUE", "RETURN")
            yield _write("beat", call, item.lease, "ok" if extended else "refused", reason=directive)


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
    return scope_bytes(key.kind, key.first, key.last, key.revision)
