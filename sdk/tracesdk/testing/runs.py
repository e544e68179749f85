"""Runs an operator's code in the test's own process. What it raises, the test sees.

The same code checks and casts as in production; only the wrapper's end is in memory. Tables given as inputs are what
the task reads: no rows are taken away by its scope.
"""

import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from traceapi.operator.v1.operator_service_pb2 import (
    OperatorLogLine,
    OperatorTask,
    TaskProgress,
    UnitEmit,
    WorkUnit,
    WriteOutputResponse,
)
from traceapi.types.v1 import scope_pb2
from traceapi.types.v1.event_pb2 import Event as EventMessage
from traceapi.types.v1.job_pb2 import JobDetails
from traceapi.types.v1.task_pb2 import OperatorState
from tracesdk.cancellation import Cancellation
from tracesdk.entrypoint import made_for
from tracesdk.errors import OperatorError, WrapperRefused
from tracesdk.job import Job
from tracesdk.operators import OrderedOperator, Source
from tracesdk.scopes import Cursor, RangeManifest, Scope
from tracesdk.testing.jobs import job_details
from tracesdk.testing.record import Record, RecordedEvent
from tracesdk.unit import Unit
from tracesdk.work import Worker

_DEFAULT_OUTPUT: Mapping[str, Mapping[str, str] | None] = {"output": {}}
SomeCode = Callable[..., Any] | OrderedOperator | Source


@dataclass(frozen=True, slots=True)
class TaskResult:
    """What a task left: its files' rows by dataset, its events in order, its log."""

    outputs: Mapping[str, pa.Table]
    events: Sequence[RecordedEvent]
    log: Sequence[str]


@dataclass(frozen=True, slots=True)
class OrderedResult:
    """What a run left. `emits` has a part for each checkpoint, and the end."""

    events: Sequence[RecordedEvent]
    emits: Sequence[UnitEmit]
    state: bytes
    watermarks: Mapping[str, Cursor]


@dataclass(frozen=True, slots=True)
class SourceResult:
    """What a source left."""

    outputs: Mapping[str, pa.Table]
    events: Sequence[RecordedEvent]
    emits: Sequence[UnitEmit]
    state: bytes
    watermarks: Mapping[str, Cursor]
    files: int


def run_task(
    code: SomeCode,
    *,
    scope: Scope,
    inputs: Mapping[str, pa.Table] | None = None,
    outputs: Mapping[str, Mapping[str, str] | None] | None = None,
    config: Mapping[str, Any] | None = None,
    manifest: RangeManifest | None = None,
    job: JobDetails | None = None,
) -> TaskResult:
    """Runs a function, or an Operator class, on one task.

    `outputs` are the declared columns by dataset, None for events only; one dataset `output` with any columns by
    default. `job` states the job in full instead.
    """
    tables = inputs or {}
    details = job or job_details(outputs=outputs or _DEFAULT_OUTPUT, inputs=tables, config=config)
    record = _run(code, details, [task_of(scope, manifest)], b"", tables)
    written: dict[str, list[pa.Table]] = {}
    for dataset, _, table in record.outputs.values():
        written.setdefault(dataset, []).append(table)
    combined = {dataset: pa.concat_tables(parts) for dataset, parts in written.items()}
    return TaskResult(combined, record.events, [line.text for line in record.lines])


def run_ordered(
    code: SomeCode,
    tasks: Iterable[OperatorTask],
    *,
    state: bytes = b"",
    job: JobDetails,
    inputs: Mapping[str, pa.Table] | None = None,
) -> OrderedResult:
    """Runs an OrderedOperator on one run of tasks, from a state. `task_of` makes tasks."""
    record = _run(code, job, list(tasks), state, inputs or {})
    return OrderedResult(record.events, record.emits, record.state, record.watermarks)


def run_source(
    code: SomeCode, *, job: JobDetails, state: bytes = b"", local_paths: Mapping[str, str] | None = None
) -> SourceResult:
    """Runs a Source until it ends, from a state."""
    record = _run(code, job, [OperatorTask(task_id=str(uuid.uuid4()), attempt=1)], state, {}, local_paths)
    tables = {name: record.table(name) for name in {event.dataset for event in record.events}}
    return SourceResult(tables, record.events, record.emits, record.state, record.watermarks, len(record.outputs))


def task_of(scope: Scope, manifest: RangeManifest | None = None, *, attempt: int = 1) -> OperatorTask:
    """A task about the scope, caused by an event about it."""
    about = scope.to_message(0)
    event = EventMessage(event_id=str(uuid.uuid4()), scope=about, manifest=manifest.to_message() if manifest else None)
    return OperatorTask(task_id=str(uuid.uuid4()), attempt=attempt, scope=about, event=event)


def _run(
    code: SomeCode,
    details: JobDetails,
    tasks: list[OperatorTask],
    state: bytes,
    inputs: Mapping[str, pa.Table],
    local_paths: Mapping[str, str] | None = None,
) -> Record:
    job = Job.from_message(details, local_paths)
    record = Record(job.max_events_per_emit)
    record.state = state
    message = WorkUnit(unit_id=1, tasks=tasks, state=OperatorState(data=state))
    unit = Unit(1, job, MemoryLink(inputs, record), Cancellation())
    emit = Worker(made_for(code, job)).process(message, unit)
    if emit is not None:
        unit.publish(emit)
    return record


class MemoryLink:
    """A `Link` whose other end is a Record."""

    def __init__(self, inputs: Mapping[str, pa.Table], record: Record) -> None:
        self._inputs = inputs
        self._record = record

    def read(
        self, task_id: str, dataset: str, columns: Sequence[str], cancellation: Cancellation
    ) -> pa.RecordBatchReader:
        del task_id, cancellation
        if dataset not in self._inputs:
            raise OperatorError(f"the test gives no input {dataset!r}; it gives {', '.join(self._inputs) or 'none'}")
        table = self._inputs[dataset]
        return (table.select(list(columns)) if columns else table).to_reader()

    def open_output(
        self, task_id: str, dataset: str, scope: scope_pb2.Scope, schema: pa.Schema, cancellation: Cancellation
    ) -> "MemoryOutput":
        del task_id, cancellation
        return MemoryOutput(self._record, dataset, scope, schema)

    def emit(self, emit: UnitEmit, cancellation: Cancellation) -> None:
        del cancellation
        result = self._record.accept(emit)
        if result.HasField("error"):
            raise WrapperRefused(result.error.reason, result.error.message)

    def log(self, line: OperatorLogLine) -> None:
        self._record.lines.append(line)

    def progress(self, report: TaskProgress) -> None:
        self._record.progress[report.task_id] = report


class MemoryOutput:
    """A file in memory."""

    def __init__(self, record: Record, dataset: str, scope: scope_pb2.Scope, schema: pa.Schema) -> None:
        self._record = record
        self._dataset = dataset
        self._scope = Scope.from_message(scope)
        self._schema = schema
        self._batches: list[pa.RecordBatch] = []

    def write(self, batch: pa.RecordBatch) -> None:
        self._batches.append(batch)

    def close(self) -> WriteOutputResponse:
        table = pa.Table.from_batches(self._batches, self._schema)
        output_id = self._record.add_output(self._dataset, self._scope, table)
        return WriteOutputResponse(output_id=output_id, row_count=table.num_rows, size_bytes=table.nbytes)

    def abort(self) -> None:
        self._batches.clear()
