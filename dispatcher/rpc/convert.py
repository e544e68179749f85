"""Between the contracts' messages and the slices' values. Pure; a message that cannot be a value raises TraceError."""

import functools
import hashlib
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Protocol

from google.protobuf.timestamp_pb2 import Timestamp

from dispatcher.datasets.rows import (
    ArtifactRow,
)
from dispatcher.events.values import Emit, NewArtifact, NewEvent, StateChange, WatermarkMove
from dispatcher.tasks.ending import CancelConfirmed, Completion, Failed, Outcome, Returned, Succeeded
from dispatcher.tasks.leases import LeaseRef, Refusal, StreamRef
from dispatcher.tasks.retries import ErrorClass
from dispatcher.tasks.rows import (
    AttemptRow,
    StateRow,
    TaskRow,
)
from kernel import scopes
from kernel.errors import TraceError
from kernel.ids import IdSource
from kernel.scopes import ScopeKey, ScopeKind
from traceapi.types.v1 import artifact_pb2, errors_pb2, event_pb2, scope_pb2, task_pb2
from traceapi.worker.v1 import worker_service_pb2 as worker
from traceapi.worker.v1.completion_pb2 import CompleteItem
from traceapi.worker.v1.emit_pb2 import EmitItem, EmittedEvent

MAX_INT64 = 2**63 - 1
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
ORIGINS = {name.removeprefix("TASK_ORIGIN_").lower(): value for name, value in task_pb2.TaskOrigin.items()}
_TASK_STATES = {name.removeprefix("TASK_STATE_").lower(): value for name, value in task_pb2.TaskState.items()}


def timestamp(moment: datetime | None) -> Timestamp | None:
    if moment is None:
        return None
    message = Timestamp()
    set_time(message, moment)
    return message


def set_time(message: Timestamp, moment: datetime) -> None:
    """`Timestamp.FromDatetime` for an aware one, in a fifth of the time."""
    since = moment - _EPOCH
    message.seconds = since.days * 86_400 + since.seconds
    message.nanos = since.microseconds * 1_000


def moment(message: Timestamp) -> datetime:
    return message.ToDatetime(tzinfo=UTC)


def item_error(refusal: Refusal) -> errors_pb2.ItemError:
    return errors_pb2.ItemError(reason=refusal.reason, message=refusal.message)


def lease_ref(message: task_pb2.TaskLease) -> LeaseRef:
    return LeaseRef(message.task_id.lower(), message.attempt, hashlib.sha256(message.lease_token).digest())


def stream_ref(message: EmitItem | CompleteItem | worker.HeartbeatItem) -> StreamRef | None:
    if not message.HasField("stream"):
        return None
    stream = message.stream
    # A number beyond the column's range is an epoch that never was, like any other wrong one.
    return StreamRef(stream.job_version_id.lower(), storable(stream.stream_key), min(stream.epoch, MAX_INT64))


def emit(item: EmitItem, new_id: IdSource) -> Emit:
    """Ids of what it may make are taken here, so that a repeated transaction makes the same.

    An item that cannot be a value is one that is refused: the others of its call have nothing to do with it.
    """
    leases, stream = tuple([lease_ref(lease) for lease in item.tasks]), stream_ref(item)
    try:
        return Emit(
            leases=leases,
            stream=stream,
            artifacts=tuple([_artifact(artifact, new_id()) for artifact in item.artifacts]),
            events=tuple([_event(event, new_id()) for event in item.events]),
            state=StateChange(item.state.data, item.state.expected_version) if item.HasField("state") else None,
            watermarks=tuple(
                [
                    WatermarkMove(move.dataset_id, scopes.cursor_key(move.cursor), int(_cursor_type(move.cursor)))
                    for move in item.watermarks
                ]
            ),
        )
    except TraceError as error:
        return Emit(leases, stream, unverified=Refusal(error.reason, error.message))


def _cursor_type(cursor: scope_pb2.CursorValue) -> scope_pb2.CursorType.ValueType:
    return scopes.cursor_type_of(scope_pb2.Scope(cursor=cursor))


def _artifact(message: artifact_pb2.Artifact, artifact_id: str) -> NewArtifact:
    return NewArtifact(
        artifact_id=artifact_id,
        dataset_id=message.dataset_id,
        object_key=message.key,
        scope=_scope_key(message.scope),
        cursor_type=int(scopes.cursor_type_of(message.scope)),
        row_count=_int64("row_count", message.row_count),
        size_bytes=_int64("size_bytes", message.size_bytes),
        sha256=message.sha256,
        schema_digest=message.schema_digest,
        schema=dict(message.schema),
        column_order=tuple(message.column_order),
    )


def _event(message: EmittedEvent, event_id: str) -> NewEvent:
    scope = message.scope
    _int64("revision", scope.revision)
    key, cursor_type = scopes.typed_scope_key(scope)
    return NewEvent(
        event_id,
        message.dataset_id,
        key,
        cursor_type,
        message.artifact_index if message.HasField("artifact_index") else None,
        message.task_index,
        message.manifest.SerializeToString(deterministic=True) if message.HasField("manifest") else b"",
        _event_time(message.event_time) if message.HasField("event_time") else None,
    )


def _scope_key(message: scope_pb2.Scope) -> ScopeKey:
    _int64("revision", message.revision)
    return scopes.scope_key(message)


def _int64(field: str, number: int) -> int:
    if number > MAX_INT64:
        raise TraceError(errors_pb2.ERROR_REASON_INVALID_REQUEST, f"{field} is {number}: more than is stored")
    return number


def _event_time(message: Timestamp) -> datetime:
    return _moment_of(message.seconds, message.nanos)


@functools.lru_cache(maxsize=256)
def _moment_of(seconds: int, nanos: int) -> datetime:
    """What a task emits at once is often of one time."""
    try:
        return moment(Timestamp(seconds=seconds, nanos=nanos))
    except (ValueError, OverflowError) as error:
        raise TraceError(errors_pb2.ERROR_REASON_INVALID_REQUEST, f"event_time: {error}") from error


def storable(text: str) -> str:
    """The text without what Postgres cannot store: tracebacks may hold anything."""
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}")


def completion(item: CompleteItem, worker_id: str) -> Completion:
    outcome: Outcome
    match item.WhichOneof("outcome"):
        case "success":
            outcome = Succeeded(item.success.emitted_event_count)
        case "failure":
            failure = item.failure
            outcome = Failed(_error_class(failure.error_class), storable(failure.message), storable(failure.traceback))
        case "returned":
            outcome = Returned(storable(item.returned.message))
        case _:
            outcome = CancelConfirmed(storable(item.canceled.message))
    usage = item.usage.SerializeToString() if item.HasField("usage") else None
    return Completion(worker_id, lease_ref(item.lease), stream_ref(item), outcome, usage)


def _error_class(value: task_pb2.ErrorClass.ValueType) -> ErrorClass:
    if value == task_pb2.ERROR_CLASS_UNSPECIFIED:
        return ErrorClass.USER
    return ErrorClass(task_pb2.ErrorClass.Name(value).removeprefix("ERROR_CLASS_").lower())


class ScopedRow(Protocol):
    """A row that has a scope; `scope_kind` is None for a source run."""

    @property
    def cursor_type(self) -> int | None: ...
    @property
    def scope_kind(self) -> int | None: ...
    @property
    def scope_first(self) -> bytes | None: ...
    @property
    def scope_last(self) -> bytes | None: ...
    @property
    def revision(self) -> int: ...


def scope(row: ScopedRow) -> scope_pb2.Scope | None:
    if row.scope_kind is None:
        return None
    message = scope_pb2.Scope()
    fill_scope(message, row)
    return message


def fill_scope(message: scope_pb2.Scope, row: ScopedRow) -> None:
    """The scope of a row that has one, into a message that is there."""
    if row.scope_kind is not None and row.scope_first is not None and row.scope_last is not None:
        cursor_type = scope_pb2.CursorType.ValueType(row.cursor_type or 0)
        key = ScopeKey(ScopeKind(row.scope_kind), row.scope_first, row.scope_last, row.revision)
        scopes.fill_scope(message, cursor_type, key)


class EventFields(ScopedRow, Protocol):
    """A row that has an event."""

    @property
    def event_id(self) -> str | None: ...
    @property
    def dataset_id(self) -> str | None: ...
    @property
    def dataset_version_id(self) -> str | None: ...
    @property
    def producer_task_id(self) -> str | None: ...
    @property
    def producer_attempt(self) -> int | None: ...
    @property
    def artifact_id(self) -> str | None: ...
    @property
    def publication_number(self) -> int | None: ...
    @property
    def manifest(self) -> bytes | None: ...
    @property
    def event_time(self) -> datetime | None: ...
    @property
    def event_origin(self) -> str | None: ...
    @property
    def accepted_at(self) -> datetime | None: ...


def event(row: EventFields) -> event_pb2.Event:
    message = event_pb2.Event()
    fill_event(message, row)
    return message


def fill_event(message: event_pb2.Event, row: EventFields) -> None:
    """The same into a message that is there."""
    message.event_id = row.event_id or ""
    message.dataset_id = row.dataset_id or ""
    message.dataset_version_id = row.dataset_version_id or ""
    fill_scope(message.scope, row)
    message.producer_task_id = row.producer_task_id or ""
    message.producer_attempt = row.producer_attempt or 0
    if row.artifact_id is not None:
        message.artifact_id = row.artifact_id
    message.publication_number = row.publication_number or 0
    if row.manifest:
        message.manifest.MergeFromString(row.manifest)
    if row.event_time is not None:
        set_time(message.event_time, row.event_time)
    message.origin = ORIGINS[row.event_origin or "unspecified"]
    if row.accepted_at is not None:
        set_time(message.accepted_time, row.accepted_at)


def artifact(row: ArtifactRow) -> artifact_pb2.Artifact:
    return artifact_pb2.Artifact(
        artifact_id=row.artifact_id,
        dataset_id=row.dataset_id,
        dataset_version_id=row.dataset_version_id,
        key=row.object_key,
        scope=scope(row),
        row_count=row.row_count,
        size_bytes=row.size_bytes,
        sha256=row.sha256,
        schema_digest=row.schema_digest,
        publication_number=row.publication_number,
        producer_task_id=row.producer_task_id,
        accepted_time=timestamp(row.accepted_at),
    )


@functools.lru_cache(maxsize=256)
def pins(found: str) -> Sequence[task_pb2.InputPin]:
    """Of JSON, which is the same for many tasks."""
    return [
        task_pb2.InputPin(
            dataset_id=pin["dataset_id"], dataset_version_id=pin["version"], publication_number=pin["number"]
        )
        for pin in json.loads(found)
    ]


def operator_state(row: StateRow) -> task_pb2.OperatorState:
    return task_pb2.OperatorState(data=row.data, version=row.version)


def task_state(state: str) -> task_pb2.TaskState.ValueType:
    return _TASK_STATES[state]


def task_state_name(state: task_pb2.TaskState.ValueType) -> str:
    return task_pb2.TaskState.Name(state).removeprefix("TASK_STATE_").lower()


def task_origin_name(origin: task_pb2.TaskOrigin.ValueType) -> str:
    return task_pb2.TaskOrigin.Name(origin).removeprefix("TASK_ORIGIN_").lower()


def task(row: TaskRow) -> task_pb2.Task:
    return task_pb2.Task(
        task_id=row.task_id,
        dag=row.dag,
        job=row.job,
        job_version_id=row.job_version_id,
        origin=ORIGINS[row.origin],
        event_id=row.event_id or "",
        trigger_dataset_id=row.trigger_dataset_id or "",
        scope=scope(row),
        state=task_state(row.shown_state),
        attempt=row.attempt,
        worker_id=row.worker_id or "",
        created_time=timestamp(row.created_at),
        finished_time=timestamp(row.finished_at),
        lease_until_time=timestamp(row.lease_until),
        retry_time=timestamp(row.retry_at),
        reason=row.shown_reason,
        accepted_event_count=row.accepted_events,
        failed_attempts=row.failed_attempts,
        lost_leases=row.lost_leases,
        progress=task_pb2.Progress.FromString(row.progress) if row.progress else None,
        nondeterministic=row.nondeterministic,
        run_state=task_pb2.RunState.Value(f"RUN_STATE_{row.run_state.upper()}"),
        paused=row.paused,
    )


def attempt(row: AttemptRow) -> task_pb2.Attempt:
    message = task_pb2.Attempt(
        attempt=row.attempt,
        worker_id=row.worker_id,
        started_time=timestamp(row.started_at),
        ended_time=timestamp(row.ended_at),
        outcome=task_pb2.AttemptOutcome.Value(f"ATTEMPT_OUTCOME_{row.outcome.upper()}"),
        usage=task_pb2.ResourceUsage.FromString(row.usage) if row.usage else None,
    )
    if row.outcome in ("failed", "lease_lost"):
        error_class = row.error_class or "lost_lease"
        message.failure.CopyFrom(
            task_pb2.TaskFailure(
                error_class=task_pb2.ErrorClass.Value(f"ERROR_CLASS_{error_class.upper()}"),
                message=row.message,
                traceback=row.traceback,
            )
        )
    else:
        message.message = row.message
    return message
