"""The life of a query: admitted, held against the gate, pinned, resolved, run in a cell, streamed, released.

Runs in the thread of its call. What stops it comes from other threads (queryd/running.py, queryd/watch.py) and reaches
this one as the end of the cell's pipe.
"""

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial

import pyarrow as pa

from kernel.errors import TraceError
from kernel.ids import IdSource
from kernel.telemetry import get_logger
from queryd import failures, records, texts
from queryd.aftermath import Aftermath, Remains
from queryd.callers import Caller
from queryd.engine import messages
from queryd.engine.arrow_messages import Envelope
from queryd.engine.frames import Kind, ProtocolError
from queryd.engine.messages import CheckedText, Job, Name
from queryd.engine.pool import CellPool, CellUnavailableError
from queryd.engine.process import CellEndedError, CellProcess
from queryd.files import PinnedFiles
from queryd.plan_text import plan_text
from queryd.relations import relations
from queryd.resolve import AsOf, ResolvedDataset, Resolver
from queryd.running import QueryIdentity, RunningQueries, RunningQuery, canceled
from queryd.watch import Watcher
from queryd.watermarks import missing_watermark
from traceapi.control.v1 import query_record_pb2 as record_pb
from traceapi.control.v1.dataset_service_pb2 import PinDatasetsResponse
from traceapi.types.v1.dataset_pb2 import Pin
from traceapi.types.v1.errors_pb2 import ErrorReason
from traceapi.types.v1.event_pb2 import Watermark

_log = get_logger("queryd.query")
_CELL_SECONDS = 15.0
# Between two looks at watermarks: at first, and at most.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 1.0

Record = Callable[[record_pb.QueryRecord], None]
"""Puts an ended query on record. Returns at once."""

OnStart = Callable[[RunningQuery], Callable[[], object]]
"""Hears of a query once it has its place; answers how a call is ended whose client does not read."""


@dataclass(frozen=True, slots=True)
class QueryText:
    """What a caller asks. `timeout` in seconds; `max_rows` 0 for the server's limit.

    `parameters` is an Arrow IPC stream of one row, the values of the text's parameters; empty where it has none.
    """

    sql: str
    query_id: str
    caller: Caller
    timeout: float
    max_rows: int = 0
    as_of: AsOf = field(default_factory=AsOf)
    min_watermarks: tuple[Watermark, ...] = ()
    parameters: bytes = b""


@dataclass(frozen=True, slots=True)
class Started:
    """What is read, and what the answer will look like. The pin is None where the text names no dataset."""

    pin: Pin | None
    watermarks: tuple[Watermark, ...]
    file_count: int
    file_bytes: int
    schema: bytes
    """An IPC message."""


@dataclass(frozen=True, slots=True)
class ArrowMessage:
    """One IPC message of the answer, in the envelope that was asked for."""

    data: bytes


@dataclass(frozen=True, slots=True)
class ArrowPart:
    """A part, as it is, of an IPC message that is too large for one piece; the last one says so."""

    data: bytes
    last: bool


@dataclass(frozen=True, slots=True)
class Finished:
    """The figures at the end; `elapsed` in seconds."""

    row_count: int
    arrow_bytes: int
    elapsed: float


Parts = Generator[Started | ArrowMessage | ArrowPart | Finished, None, None]


@dataclass(frozen=True, slots=True)
class Explained:
    """What a query would read, and the engine's plan."""

    datasets: tuple[ResolvedDataset, ...]
    plan: str


@dataclass(frozen=True, slots=True)
class Description:
    """A text before it is run: the answer's schema, as an IPC message, and its parameters, "1" to "n" or names."""

    schema: bytes
    parameters: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Prepared:
    """A query whose cell has all it needs but the word to begin."""

    cell: CellProcess
    pinned: PinDatasetsResponse
    datasets: tuple[ResolvedDataset, ...]
    checked: CheckedText
    schema: bytes
    max_rows: int


@dataclass(frozen=True, slots=True)
class QueryRunner:
    """Runs queries, each in the thread that asks. One for each queryd."""

    resolver: Resolver
    pool: CellPool
    files: PinnedFiles
    queries: RunningQueries
    max_rows: int
    watcher: Watcher
    aftermath: Aftermath
    record: Record
    new_id: IdSource
    clock: Callable[[], float] = field(default=time.monotonic)

    def run(self, text: QueryText, on_start: OnStart, envelope: Envelope) -> Parts:
        """The answer in parts: what is read, then messages of an Arrow stream, then the figures. Raises TraceError.

        The engine begins when what is read has been told, and does as much as can wait to be read.
        """
        begin = self.clock()
        with ExitStack() as held, self._place(text, begin, on_start, held) as query:
            prepared = self._prepare(query, text, held)
            prepared.cell.send(Kind.RUN, b"")
            yield _started(prepared)
            query.arrow_bytes = len(prepared.schema)
            yield from self._messages(query, prepared, envelope)
            query.check()
            yield Finished(query.row_count, query.arrow_bytes, self.clock() - begin)

    def explain(self, text: QueryText, on_start: OnStart) -> Explained:
        """What the query would read, without running it. Raises TraceError."""
        with ExitStack() as held, self._place(text, self.clock(), on_start, held) as query:
            prepared = self._prepare(query, text, held)
            prepared.cell.send(Kind.EXPLAIN, b"")
            payload = self._expect(prepared.cell, prepared.datasets, Kind.PLAN)
            plan = plan_text(payload.decode(errors="replace")).replace(f"{prepared.cell.store}/", "")
            return Explained(prepared.datasets, plan)

    def describe(self, text: QueryText, on_start: OnStart) -> Description:
        """What the answer will look like, and what the text's parameters are called. Raises TraceError."""
        with ExitStack() as held, self._place(text, self.clock(), on_start, held) as query:
            prepared = self._prepare(query, text, held)
            return Description(prepared.schema, prepared.checked.parameters)

    @contextmanager
    def _place(self, text: QueryText, begin: float, on_start: OnStart, held: ExitStack) -> Iterator[RunningQuery]:
        """Everything that a query holds is given back when the block is left, however it is left; what is `held` last,
        when the cell that reads it is gone."""
        identity = QueryIdentity(text.query_id, text.caller, text.sql, _as_of(text.as_of), datetime.now(UTC))
        query = RunningQuery(identity, begin + text.timeout)
        failure: TraceError | None = TraceError(ErrorReason.ERROR_REASON_INTERNAL, "a defect")
        with self.watcher.watching(query, text.timeout, on_start(query)), self.queries.admitted(query) as clear:
            held.callback(clear)  # the first of what is held, so the last to be let go of
            try:
                yield query
                failure = None
            except (TraceError, CellEndedError, ProtocolError, CellUnavailableError) as error:
                failure = query.stopped or _failure(error)
                raise failure from error
            except GeneratorExit:
                failure = query.stopped or canceled("its answer is not read any more")
                raise
            finally:
                tell = partial(self._ended, query, failure, self.clock() - begin)
                self.aftermath.take(Remains(query.end(), held.pop_all(), query.pin_id, tell))

    def _ended(self, query: RunningQuery, failure: TraceError | None, elapsed: float) -> None:
        _log.info(
            "query ended",
            query_id=query.identity.query_id,
            actor=query.identity.caller.actor,
            outcome="OK" if failure is None else failure.reason_name,
            row_count=query.row_count,
            elapsed_seconds=round(elapsed, 3),
        )
        self.record(records.record(self.new_id(), query, failure, elapsed))

    def _prepare(self, query: RunningQuery, text: QueryText, held: ExitStack) -> _Prepared:
        cell = self.pool.take(min(_CELL_SECONDS, text.timeout))
        query.attach(cell)
        if text.parameters:
            cell.send(Kind.PARAMETERS, text.parameters)
        checked = texts.checked(cell, text.sql)
        pinned, datasets = PinDatasetsResponse(), list[ResolvedDataset]()
        if checked.names:
            try:
                pinned = self._pin(query, text, checked.names)
            except TraceError as error:
                raise failures.at_name(error, checked.names) from error
            demands = texts.demands(cell, pinned, checked.names)
            seconds = max(query.deadline - self.clock(), 0.001)
            datasets = self.resolver.resolve(pinned, demands, seconds, query.asks)
            held.enter_context(self.files.provided(datasets, cell.files, query.check))
        made, tables = relations(datasets, cell.store)
        for table in tables:
            cell.send(Kind.TABLE, _arrow_stream(table))
        query.check()
        max_rows = min(text.max_rows or self.max_rows, self.max_rows)
        cell.send(Kind.DESCRIBE, messages.pack_job(Job(text.sql, made, max_rows)))
        schema = self._expect(cell, datasets, Kind.SCHEMA)
        return _Prepared(cell, pinned, tuple(datasets), checked, schema, max_rows)

    def _pin(self, query: RunningQuery, text: QueryText, names: Sequence[Name]) -> PinDatasetsResponse:
        """Pins once; where the caller waits for watermarks, the first pin that has reached them."""
        named = texts.demanded(names)
        pause = _FIRST_PAUSE
        while True:
            pinned = self.resolver.pin(named, text.as_of)
            query.pin_id = pinned.pin.pin_id
            missing = missing_watermark(pinned, text.min_watermarks)
            if missing is None:
                query.pin = pinned.pin
                return pinned
            self.aftermath.release(query.pin_id)
            query.pin_id = ""
            if text.as_of != AsOf() or self.clock() + pause > query.deadline:
                raise TraceError(ErrorReason.ERROR_REASON_DEADLINE_EXCEEDED, missing)
            query.ended.wait(pause)
            query.check()
            pause = min(pause * 2, _LONGEST_PAUSE)

    def _messages(
        self, query: RunningQuery, prepared: _Prepared, envelope: Envelope
    ) -> Iterator[ArrowMessage | ArrowPart]:
        while (answered := prepared.cell.receive_answer(envelope)).kind is not Kind.FINISHED:
            if answered.kind not in (Kind.ARROW, Kind.ARROW_PART, Kind.ARROW_END):
                raise self._unexpected(prepared.cell, prepared.datasets, answered.kind, answered.payload)
            # The count goes on record, where a number that cannot be stored would keep the record out.
            if not query.row_count <= answered.row_count <= prepared.max_rows:
                raise ProtocolError(f"{answered.row_count} rows, after {query.row_count}, {prepared.max_rows} at most")
            query.row_count = answered.row_count
            query.arrow_bytes += answered.arrow_bytes
            if answered.kind is Kind.ARROW:
                yield ArrowMessage(answered.payload)
            else:
                yield ArrowPart(answered.payload, answered.kind is Kind.ARROW_END)

    def _expect(self, cell: CellProcess, datasets: Sequence[ResolvedDataset], wanted: Kind) -> bytes:
        kind, payload = cell.receive()
        if kind is not wanted:
            raise self._unexpected(cell, datasets, kind, payload)
        return payload

    def _unexpected(
        self, cell: CellProcess, datasets: Sequence[ResolvedDataset], kind: Kind, payload: bytes
    ) -> TraceError | ProtocolError:
        if kind is not Kind.FAILED:
            return ProtocolError(f"{kind} while an answer was awaited")
        failure = messages.unpack_failure(payload)
        if failure.kind in ("failed", "files"):
            # The engine's word for a damaged file is no word for people.
            self.files.check_contents(datasets, None if failure.kind == "files" else failure.message)
        return failures.of_failure(failure, cell.store)


def _as_of(asked: AsOf) -> record_pb.QueryAsOf.ValueType:
    if asked.pin is not None:
        return record_pb.QUERY_AS_OF_PIN
    return record_pb.QUERY_AS_OF_NOW if asked.deploy_number is None else record_pb.QUERY_AS_OF_DEPLOY


def _started(prepared: _Prepared) -> Started:
    pinned = prepared.pinned
    return Started(
        pin=pinned.pin if pinned.datasets else None,
        watermarks=tuple(item.watermark for item in pinned.datasets if item.HasField("watermark")),
        file_count=sum(len(dataset.artifacts) for dataset in prepared.datasets),
        file_bytes=sum(dataset.file_bytes for dataset in prepared.datasets),
        schema=prepared.schema,
    )


def _failure(error: TraceError | CellEndedError | ProtocolError | CellUnavailableError) -> TraceError:
    if isinstance(error, TraceError):
        return error
    if isinstance(error, CellEndedError):
        _log.warning("a cell ended without an answer", signal=error.signal_number, raised=failures.raised(error.stderr))
        return failures.of_end(error)
    return failures.of_defect(error)


def _arrow_stream(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()
