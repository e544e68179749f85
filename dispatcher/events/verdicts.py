"""The verdict on one emit, from values only: the checks that stand between a worker's word and an accepted fact."""

from collections.abc import Mapping
from dataclasses import dataclass

from dispatcher.events.rows import (
    EventKey,
    ExistingArtifact,
    ExistingEvent,
    JobOutputRow,
)
from dispatcher.events.values import Accepted, Emit, EmitVerdict, EventVerdict, NewArtifact, NewEvent
from dispatcher.tasks.leases import LockedTask, Refusal
from dispatcher.tasks.rows import (
    StateRow,
)
from kernel.column_types import is_order_of, schema_digest
from kernel.scopes import ScopeKey, ScopeKind
from traceapi.types.v1.errors_pb2 import ErrorReason as Reason


@dataclass(slots=True)
class Found:
    """What stands in the database under the keys that a batch touches; accepted items of the batch are added to it."""

    events: dict[EventKey, ExistingEvent]
    artifacts: dict[str, ExistingArtifact]
    extents: dict[tuple[str, ScopeKey], tuple[bytes, bytes]]
    schemas: dict[str, bytes]
    states: dict[tuple[str, str], StateRow]
    watermarks: dict[str, bytes]


class _RefusedError(Exception):
    """Leaves the checks of one item; never leaves this module."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal


def judge(op: Emit, tasks: Mapping[str, LockedTask], produced: Mapping[str, JobOutputRow], found: Found) -> EmitVerdict:
    """Accepted or refused as a whole. The leases were judged before."""
    first = tasks[op.leases[0].task_id]
    try:
        if any(tasks[lease.task_id].job_version_id != first.job_version_id for lease in op.leases):
            _refuse(Reason.ERROR_REASON_INVALID_REQUEST, "an item's tasks are of one job version")
        if len(op.leases) > 1 and op.stream is None:
            _refuse(Reason.ERROR_REASON_INVALID_REQUEST, "only a run of an ordered stream emits for several tasks")
        if (op.state or op.watermarks) and first.origin != "source_run" and first.stream_key is None:
            _refuse(Reason.ERROR_REASON_INVALID_REQUEST, "only a source or an ordered job has state and watermarks")
        _check_repetition(op)
        new_schemas: dict[str, bytes] = {}
        for artifact in op.artifacts:
            _check_artifact(artifact, first, produced, found, new_schemas)
        verdicts = tuple(_event_verdict(op, event, tasks, produced, found) for event in op.events)
        if _repeats_late(op, first, produced, found):
            return Accepted(verdicts, op.state.expected_version + 1 if op.state else 0, overtaken=True)
        version = _state_version(op, first, found)
        _check_watermarks(op, produced, found)
    except _RefusedError as refused:
        return refused.refusal
    return Accepted(verdicts, version)


def hinders_success(op: Emit, first: LockedTask, found: Found) -> bool:
    """Whether something would be missing without the refused emit. Of a state that others have followed, and nothing
    else, nobody can tell whether it was accepted before; but what followed it stands."""
    if op.events or op.artifacts or op.state is None:
        return True
    standing = found.states.get((first.job_version_id, first.stream_key or ""))
    return standing is None or standing.version <= op.state.expected_version + 1


def _repeats_late(op: Emit, first: LockedTask, produced: Mapping[str, JobOutputRow], found: Found) -> bool:
    """Whether its very attempts emitted all of its events before, and its state or watermarks were written over since:
    a call that was accepted arrives once more, late."""
    for event in op.events:
        lease = op.leases[event.task_index]
        standing = found.events.get(EventKey(produced[event.dataset_id].dataset_version_id, lease.task_id, event.scope))
        if standing is None or standing.producer_attempt != lease.attempt:
            return False
    behind = any(
        move.dataset_id in produced
        and (present := found.watermarks.get(produced[move.dataset_id].dataset_version_id)) is not None
        and move.cursor_key < present
        for move in op.watermarks
    )
    if not op.events or op.state is None:
        return bool(op.events) and behind
    state = found.states.get((first.job_version_id, first.stream_key or ""))
    if state is None or state.version <= op.state.expected_version:
        return False
    return state.version > op.state.expected_version + 1 or (behind and state.data == op.state.data)


def _refuse(reason: Reason.ValueType, message: str) -> None:
    raise _RefusedError(Refusal(reason, message))


def _check_repetition(op: Emit) -> None:
    keys = {(event.dataset_id, event.task_index, event.scope) for event in op.events}
    if len(keys) < len(op.events):
        _refuse(Reason.ERROR_REASON_EVENT_CONFLICT, "one item emits a dataset twice at the same scope")
    if len({artifact.object_key for artifact in op.artifacts}) < len(op.artifacts):
        _refuse(Reason.ERROR_REASON_ARTIFACT_CONFLICT, "one item commits a key twice")


def _output(dataset_id: str, produced: Mapping[str, JobOutputRow]) -> JobOutputRow:
    row = produced.get(dataset_id)
    if row is None:
        names = ", ".join(sorted(produced)) or "nothing"
        raise _RefusedError(
            Refusal(Reason.ERROR_REASON_DATASET_NOT_PRODUCED, f"{dataset_id} is no output of the job; it has {names}")
        )
    return row


def _check_scope(scope: ScopeKey, cursor_type: int, row: JobOutputRow, revision: int) -> None:
    if scope.kind is not ScopeKind.PARTITION and cursor_type != row.cursor_type:
        _refuse(Reason.ERROR_REASON_SCOPE_MISMATCH, f"{row.dataset_id} has cursors of another type")
    if scope.kind is ScopeKind.PARTITION and row.cursor_type != 0:
        _refuse(Reason.ERROR_REASON_SCOPE_MISMATCH, f"{row.dataset_id} has cursors, not partition keys")
    if scope.first > scope.last:
        _refuse(Reason.ERROR_REASON_SCOPE_MISMATCH, f"a range of {row.dataset_id} ends before it begins")
    if scope.revision != revision:
        _refuse(
            Reason.ERROR_REASON_SCOPE_MISMATCH,
            f"the task is of revision {revision}, its output for {row.dataset_id} of {scope.revision}",
        )


def _check_artifact(
    artifact: NewArtifact,
    task: LockedTask,
    produced: Mapping[str, JobOutputRow],
    found: Found,
    new_schemas: dict[str, bytes],
) -> None:
    """`new_schemas` gathers, by dataset version, what this very item would freeze."""
    row = _output(artifact.dataset_id, produced)
    if not row.stored:
        _refuse(Reason.ERROR_REASON_DATASET_NOT_PRODUCED, f"{row.dataset_id} has no files: its storage is none")
    _check_scope(artifact.scope, artifact.cursor_type, row, task.revision)
    prefix = f"data/{row.dataset_version_id}/"
    if not artifact.object_key.startswith(prefix):
        _refuse(Reason.ERROR_REASON_ARTIFACT_CONFLICT, f"artifacts of {row.dataset_id} have keys under {prefix}")
    standing = found.artifacts.get(artifact.object_key)
    if standing is not None:
        if (standing.sha256, standing.size_bytes) != (artifact.sha256, artifact.size_bytes):
            _refuse(Reason.ERROR_REASON_ARTIFACT_CONFLICT, f"{artifact.object_key} was committed with other content")
        return
    _check_schema(artifact, row, found, new_schemas)
    extent = found.extents.get((row.dataset_version_id, artifact.scope))
    if extent is None or artifact.scope.kind is ScopeKind.PARTITION or not row.replaces:
        return
    if extent != (artifact.scope.first, artifact.scope.last) and extent[1] >= artifact.scope.first:
        _refuse(Reason.ERROR_REASON_SCOPE_OVERLAP, f"a file of {row.dataset_id} overlaps an earlier one in part")


def _check_schema(artifact: NewArtifact, row: JobOutputRow, found: Found, new_schemas: dict[str, bytes]) -> None:
    schema = row.schema_digest or found.schemas.get(row.dataset_version_id)
    if schema is None:
        if not _digest_fits(artifact):
            _refuse(Reason.ERROR_REASON_INVALID_REQUEST, f"the columns of {artifact.object_key} have another digest")
        if artifact.column_order and not is_order_of(artifact.column_order, artifact.schema):
            message = f"the order of the columns of {artifact.object_key} is not one of exactly its columns"
            _refuse(Reason.ERROR_REASON_INVALID_REQUEST, message)
        schema = new_schemas.setdefault(row.dataset_version_id, artifact.schema_digest)
    if schema != artifact.schema_digest:
        columns = ", ".join(f"{name}: {artifact.schema[name]}" for name in sorted(artifact.schema))
        _refuse(Reason.ERROR_REASON_SCHEMA_DRIFT, f"{row.dataset_id} has other columns than this file: {columns}")


def _digest_fits(artifact: NewArtifact) -> bool:
    try:
        return schema_digest(artifact.schema) == artifact.schema_digest
    except ValueError:
        return False


def _event_verdict(
    op: Emit,
    event: NewEvent,
    tasks: Mapping[str, LockedTask],
    produced: Mapping[str, JobOutputRow],
    found: Found,
) -> EventVerdict:
    row = _output(event.dataset_id, produced)
    if event.task_index >= len(op.leases):
        _refuse(Reason.ERROR_REASON_INVALID_REQUEST, f"task_index {event.task_index} of {len(op.leases)} tasks")
    lease = op.leases[event.task_index]
    _check_scope(event.scope, event.cursor_type, row, tasks[lease.task_id].revision)
    sha256 = b""
    if event.artifact_index is not None:
        if event.artifact_index >= len(op.artifacts):
            _refuse(
                Reason.ERROR_REASON_INVALID_REQUEST, f"artifact_index {event.artifact_index} of {len(op.artifacts)}"
            )
        artifact = op.artifacts[event.artifact_index]
        if artifact.dataset_id != event.dataset_id:
            _refuse(Reason.ERROR_REASON_INVALID_REQUEST, f"an event of {event.dataset_id} points at another's file")
        sha256 = artifact.sha256
    elif row.stored:
        _refuse(Reason.ERROR_REASON_INVALID_REQUEST, f"an event of {event.dataset_id} points at its file")
    standing = found.events.get(EventKey(row.dataset_version_id, lease.task_id, event.scope))
    if standing is None:
        return EventVerdict(event.event_id)
    same = standing.payload_digest == event.payload_digest(sha256)
    if not same and standing.producer_attempt == lease.attempt:
        _refuse(
            Reason.ERROR_REASON_EVENT_CONFLICT,
            f"this attempt emitted {event.dataset_id} at the same scope before, with another payload",
        )
    return EventVerdict(standing.event_id, duplicate=True, differs=not same)


def _state_version(op: Emit, task: LockedTask, found: Found) -> int:
    """The version after the write. A write that stands already, byte for byte, is a repetition of this very call."""
    if op.state is None:
        return 0
    standing = found.states.get((task.job_version_id, task.stream_key or ""))
    version = standing.version if standing else 0
    if version == op.state.expected_version:
        return version + 1
    if standing is not None and version == op.state.expected_version + 1 and standing.data == op.state.data:
        return version
    raise _RefusedError(
        Refusal(
            Reason.ERROR_REASON_STATE_CONFLICT,
            f"the state is of version {version}, the write replaces {op.state.expected_version}",
        )
    )


def _check_watermarks(op: Emit, produced: Mapping[str, JobOutputRow], found: Found) -> None:
    for move in op.watermarks:
        row = _output(move.dataset_id, produced)
        if move.cursor_type != row.cursor_type:
            _refuse(Reason.ERROR_REASON_SCOPE_MISMATCH, f"{row.dataset_id} has cursors of another type")
        present = found.watermarks.get(row.dataset_version_id)
        if present is not None and move.cursor_key < present:
            _refuse(Reason.ERROR_REASON_WATERMARK_BACKWARDS, f"{row.dataset_id} is complete beyond this cursor already")
