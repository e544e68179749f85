"""A unit of work while it runs: what it read, wrote and wants to publish. Owns the checks of what goes to the wrapper.

Events are held back until the operator's code has returned: a failed attempt then leaves nothing behind.
"""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

import pyarrow as pa

from traceapi.operator.v1.operator_service_pb2 import OperatorEvent, UnitEmit
from traceapi.types.v1 import scope_pb2
from traceapi.types.v1.event_pb2 import Watermark
from tracesdk.arrow_types import cast_batch, output_schema
from tracesdk.cancellation import Cancellation
from tracesdk.errors import InvalidOutput
from tracesdk.job import Job, OutputDataset
from tracesdk.link import Link
from tracesdk.scopes import Cursor, RangeManifest, Scope, cursor_to_message, fill_time

Rows = pa.Table | pa.RecordBatch | pa.RecordBatchReader
ROW_TYPES = (pa.Table, pa.RecordBatch, pa.RecordBatchReader)

_BATCH_ROWS = 65_536
_BATCH_BYTES = 32 * 1024 * 1024
_EMIT_BYTES = 4 * 1024 * 1024  # well below the limit of a message
_EMITS_AT_ONCE = 8  # enough for the dispatcher to put several into each of its transactions
_STATE_BYTES = 1024 * 1024  # the contract's limit


@dataclass(frozen=True, slots=True)
class Output:
    """A file that was written. Emits name it; nothing is visible before."""

    output_id: str
    dataset: str
    rows: int
    size_bytes: int
    scope: scope_pb2.Scope


class Unit:
    """One unit's reads, writes and events, for the tasks of it."""

    __slots__ = ("cancellation", "events", "job", "link", "rows_read", "rows_written", "unit_id")

    def __init__(self, unit_id: int, job: Job, link: Link, cancellation: Cancellation) -> None:
        self.unit_id = unit_id
        self.job = job
        self.link = link
        self.cancellation = cancellation
        self.events: list[OperatorEvent] = []
        self.rows_read = 0
        self.rows_written = 0

    def read(self, task_id: str, dataset: str, columns: Sequence[str]) -> pa.RecordBatchReader:
        """Rows of an input as they arrive; counted, and ended by a cancellation."""
        self.cancellation.check()
        rows = self.link.read(task_id, dataset, columns, self.cancellation)
        return pa.RecordBatchReader.from_batches(rows.schema, self._counted(rows))

    def write(self, task_id: str, output: OutputDataset, rows: Rows, scope: scope_pb2.Scope) -> Output:
        """Writes a file of rows, cast to the declared columns. The wrapper brings them into the declared order."""
        self.cancellation.check()
        if not output.stored:
            raise InvalidOutput(f"the dataset {output.dataset!r} keeps events only: emit without writing")
        schema = output_schema(output.dataset, rows.schema, output.schema)
        stream = self.link.open_output(task_id, output.dataset, scope, schema, self.cancellation)
        try:
            for batch in _batches(rows):
                stream.write(cast_batch(output.dataset, batch, schema))
            written = stream.close()
        except BaseException:
            stream.abort()
            raise
        self.rows_written += written.row_count
        return Output(written.output_id, output.dataset, written.row_count, written.size_bytes, scope)

    def add_event(
        self,
        task_id: str,
        revision: int,
        output: OutputDataset,
        scope: Scope | scope_pb2.Scope,
        file: Output | None,
        manifest: RangeManifest | None,
        event_time: datetime | None,
    ) -> OperatorEvent:
        """Makes an event and holds it back. `revision` is the task's, which a scope has that states none."""
        if output.stored and file is None:
            raise InvalidOutput(f"an event of {output.dataset!r} needs the file with its rows: emit(..., output=...)")
        if file is not None and file.dataset != output.dataset:
            raise InvalidOutput(f"an event of {output.dataset!r} names a file of {file.dataset!r}")
        event = OperatorEvent(
            dataset_id=output.dataset, task_id=task_id, output_id=file.output_id if file is not None else ""
        )
        if isinstance(scope, Scope):
            scope.fill(event.scope, revision)
        else:
            event.scope.CopyFrom(scope)
        if manifest is not None:
            event.manifest.CopyFrom(manifest.to_message())
        if event_time is not None:
            fill_time(event.event_time, event_time)
        self.events.append(event)
        return event

    def emit_now(self, event: OperatorEvent) -> None:
        """Publishes one event that is held back."""
        if self.job.ordered:
            raise InvalidOutput("an ordered job publishes by run.checkpoint(task), not by emit(now=True)")
        self.events.remove(event)
        self.publish(UnitEmit(unit_id=self.unit_id, events=[event]))

    def publish(self, emit: UnitEmit) -> None:
        """Publishes now; raises WrapperRefused where the wrapper or the dispatcher says no."""
        self.cancellation.check()
        self.link.emit(emit, self.cancellation)

    def publish_all_but_last(self, events: Sequence[OperatorEvent]) -> UnitEmit:
        """Publishes what does not fit into one emit, and returns the last part, not yet published."""
        parts = list(self._parts(events))
        for part in parts[:-1]:
            self.publish(UnitEmit(unit_id=self.unit_id, events=part))
        return UnitEmit(unit_id=self.unit_id, events=parts[-1] if parts else [])

    def publish_all_but_last_at_once(self, events: list[OperatorEvent]) -> UnitEmit:
        """The same, several parts at a time, in any order: for events that say nothing about each other. Gives `events`
        up: of a million, each is freed when it is on its way."""
        parts = list(self._parts(events))
        events.clear()

        def publish(part: list[OperatorEvent]) -> None:
            emit = UnitEmit(unit_id=self.unit_id, events=part)
            part.clear()
            self.publish(emit)

        if len(parts) > 1:
            with ThreadPoolExecutor(_EMITS_AT_ONCE, thread_name_prefix="emits") as threads:
                for _ in threads.map(publish, parts[:-1]):
                    pass
        return UnitEmit(unit_id=self.unit_id, events=parts[-1] if parts else [])

    def take_events(self) -> list[OperatorEvent]:
        events, self.events = self.events, []
        return events

    def _parts(self, events: Sequence[OperatorEvent]) -> Iterator[list[OperatorEvent]]:
        part: list[OperatorEvent] = []
        size = 0
        for event in events:
            length = event.ByteSize()
            if part and (len(part) == self.job.max_events_per_emit or size + length > _EMIT_BYTES):
                yield part
                part, size = [], 0
            part.append(event)
            size += length
        if part:
            yield part

    def _counted(self, rows: pa.RecordBatchReader) -> Iterator[pa.RecordBatch]:
        with _closing(rows):
            for batch in rows:
                self.cancellation.check()
                self.rows_read += batch.num_rows
                yield batch


def watermark_message(output: OutputDataset, cursor: Cursor) -> Watermark:
    """Says that the output is complete up to the cursor, and including it."""
    return Watermark(dataset_id=output.dataset, cursor=cursor_to_message(cursor))


def checked_state(state: bytes) -> bytes:
    """The state, where the contract can carry it."""
    if len(state) > _STATE_BYTES:
        raise InvalidOutput(f"the state has {len(state):,} bytes; at most {_STATE_BYTES:,} can be kept")
    return state


def _batches(rows: Rows) -> Iterator[pa.RecordBatch]:
    """The rows in batches of which each is one message that the wrapper takes."""
    for batch in [rows] if isinstance(rows, pa.RecordBatch) else _parts_of(rows):
        count = max(1, batch.num_rows * _BATCH_BYTES // max(batch.nbytes, _BATCH_BYTES))
        for start in range(0, batch.num_rows, count):
            yield batch.slice(start, count)


def _parts_of(rows: pa.Table | pa.RecordBatchReader) -> Iterable[pa.RecordBatch]:
    return rows.to_batches(max_chunksize=_BATCH_ROWS) if isinstance(rows, pa.Table) else rows


@contextmanager
def _closing(rows: pa.RecordBatchReader) -> Iterator[None]:
    """Ends the call behind the rows, also when not all of them were wanted."""
    try:
        yield
    finally:
        rows.close()
