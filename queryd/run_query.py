"""The life of a query: admitted, held against the gate, pinned, resolved, run in a cell, streamed, released.

Runs in the thread of its call. What stops it comes from other threads (queryd/running.py, queryd/watch.py) and reaches
this one as the end of the cell's pipe.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime

import pyarrow as pa

from kernel.errors import TraceError
from kernel.telemetry import get_logger
from queryd import failures
from queryd.engine import messages
from queryd.engine.messages import Job, Kind, Name, ProtocolError
from queryd.engine.pool import CellPool, CellUnavailableError
from queryd.engine.process import CellEndedError, CellProcess
from queryd.files import PinnedFiles
from queryd.plan_text import plan_text
from queryd.relations import relations
from queryd.resolve import AsOf, ResolvedDataset, Resolver
from queryd.running import QueryIdentity, RunningQueries, RunningQuery
from queryd.watch import Watcher
from queryd.watermarks import missing_watermark
from traceapi.control.v1.dataset_service_pb2 import PinDatasetsResponse
from traceapi.types.v1.dataset_pb2 import Pin
from traceapi.types.v1.errors_pb2 import ErrorReason
from traceapi.types.v1.event_pb2 import Watermark

_log = get_logger("queryd.query")
_CELL_SECONDS = 15.0
# Between two looks at watermarks: at first, and at most.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 1.0

OnStart = Callable[[RunningQuery], Callable[[], object]]
"""Hears of a query once it has its place; answers how a call is ended whose client does not read."""


@dataclass(frozen=True, slots=True)
class QueryText:
    """What a caller asks. `timeout` in seconds; `max_rows` 0 for the server's limit."""

    sql: str
    query_id: str
    actor: str
    timeout: float
    max_rows: int = 0
    as_of: AsOf = field(default_factory=AsOf)
    min_watermarks: tuple[Watermark, ...] = ()


@dataclass(frozen=True, slots=True)
class Started:
    """What is read. The pin is None where the text names no dataset."""

    pin: Pin | None
    watermarks: tuple[Watermark, ...]
    file_count: int
    file_bytes: int


@dataclass(frozen=True, slots=True)
class Finished:
    """The figures at the end; `elapsed` in seconds."""

    row_count: int
    arrow_bytes: int
    elapsed: float


@dataclass(frozen=True, slots=True)
class Explained:
    """What a query would read, and the engine's plan."""

    datasets: tuple[ResolvedDataset, ...]
    plan: str


@dataclass(frozen=True, slots=True)
class _Prepared:
    """A query whose cell has all it needs but the word to begin."""

    cell: CellProcess
    pinned: PinDatasetsResponse
    datasets: tuple[ResolvedDataset, ...]
    job: Job


@dataclass(frozen=True, slots=True)
class QueryRunner:
    """Runs queries, each in the thread that asks. One for each queryd."""

    resolver: Resolver
    pool: CellPool
    files: PinnedFiles
    queries: RunningQueries
    max_rows: int
    watcher: Watcher
    clock: Callable[[], float] = field(default=time.monotonic)

    def run(self, text: QueryText, on_start: OnStart) -> Iterator[Started | bytes | Finished]:
        """The answer in parts: what is read, then bytes of one Arrow stream, then the figures. Raises TraceError."""
        begin = self.clock()
        # The files are let go of last, when the cell that reads them is gone.
        with ExitStack() as held, self._place(text, begin, on_start) as query:
            prepared = self._prepare(query, text, held)
            yield _started(prepared)
            prepared.cell.send(Kind.RUN, messages.pack_job(prepared.job))
            arrow_bytes = 0
            for part in self._parts(query, prepared):
                arrow_bytes += len(part)
                yield part
            query.check()
            yield Finished(query.row_count, arrow_bytes, self.clock() - begin)

    def explain(self, text: QueryText, on_start: OnStart) -> Explained:
        """What the query would read, without running it. Raises TraceError."""
        with ExitStack() as held, self._place(text, self.clock(), on_start) as query:
            prepared = self._prepare(query, text, held)
            prepared.cell.send(Kind.EXPLAIN, messages.pack_job(prepared.job))
            payload = self._expect(prepared, Kind.PLAN)
            plan = plan_text(payload.decode(errors="replace")).replace(f"{prepared.cell.store}/", "")
            return Explained(prepared.datasets, plan)

    @contextmanager
    def _place(self, text: QueryText, begin: float, on_start: OnStart) -> Iterator[RunningQuery]:
        """Everything that a query holds is given back when the block is left, however it is left."""
        identity = QueryIdentity(text.query_id, text.actor, text.sql, datetime.now(UTC))
        query = RunningQuery(identity, begin + text.timeout)
        outcome = "ABANDONED"
        with self.queries.admitted(query):
            try:
                with self.watcher.watching(query, text.timeout, on_start(query)):
                    yield query
                outcome = "OK"
            except (TraceError, CellEndedError, ProtocolError, CellUnavailableError) as error:
                failure = query.stopped or _failure(error)
                outcome = failure.reason_name
                raise failure from error
            finally:
                if query.stopped is not None:
                    outcome = query.stopped.reason_name
                query.end()
                self._release(query.pin_id)
                elapsed = round(self.clock() - begin, 3)
                _log.info(
                    "query ended",
                    query_id=identity.query_id,
                    actor=identity.actor,
                    outcome=outcome,
                    row_count=query.row_count,
                    elapsed_seconds=elapsed,
                )

    def _prepare(self, query: RunningQuery, text: QueryText, held: ExitStack) -> _Prepared:
        cell = self.pool.take(min(_CELL_SECONDS, text.timeout))
        query.attach(cell)
        names = _names(cell, text.sql)
        pinned, datasets = PinDatasetsResponse(), list[ResolvedDataset]()
        if names:
            try:
                pinned = self._pin(query, text, names)
            except TraceError as error:
                raise failures.at_name(error, names) from error
            datasets = self.resolver.resolve(pinned, max(query.deadline - self.clock(), 0.001))
            held.enter_context(self.files.provided(datasets, cell.files, query.check))
        made, tables = relations(datasets, cell.store)
        for table in tables:
            cell.send(Kind.TABLE, _arrow_stream(table))
        query.check()
        max_rows = min(text.max_rows or self.max_rows, self.max_rows)
        return _Prepared(cell, pinned, tuple(datasets), Job(text.sql, made, max_rows))

    def _pin(self, query: RunningQuery, text: QueryText, names: list[Name]) -> PinDatasetsResponse:
        """Pins once; where the caller waits for watermarks, the first pin that has reached them."""
        wanted = list(dict.fromkeys(name.dataset_id for name in names))
        pause = _FIRST_PAUSE
        while True:
            pinned = self.resolver.pin(wanted, text.as_of)
            query.pin_id = pinned.pin.pin_id
            missing = missing_watermark(pinned, text.min_watermarks)
            if missing is None:
                return pinned
            self._release(query.pin_id)
            query.pin_id = ""
            if text.as_of != AsOf() or self.clock() + pause > query.deadline:
                raise TraceError(ErrorReason.ERROR_REASON_DEADLINE_EXCEEDED, missing)
            query.ended.wait(pause)
            query.check()
            pause = min(pause * 2, _LONGEST_PAUSE)

    def _parts(self, query: RunningQuery, prepared: _Prepared) -> Iterator[bytes]:
        while True:
            kind, payload = prepared.cell.receive()
            if kind is Kind.FINISHED:
                return
            if kind is not Kind.ARROW:
                raise self._unexpected(prepared, kind, payload)
            query.row_count, data = messages.unpack_arrow(payload)
            yield data

    def _expect(self, prepared: _Prepared, wanted: Kind) -> bytes:
        kind, payload = prepared.cell.receive()
        if kind is not wanted:
            raise self._unexpected(prepared, kind, payload)
        return payload

    def _unexpected(self, prepared: _Prepared, kind: Kind, payload: bytes) -> TraceError | ProtocolError:
        if kind is not Kind.FAILED:
            return ProtocolError(f"{kind} while an answer was awaited")
        failure = messages.unpack_failure(payload)
        if failure.kind in ("failed", "files"):
            # The engine's word for a damaged file is no word for people.
            self.files.check_contents(prepared.datasets, None if failure.kind == "files" else failure.message)
        return failures.of_failure(failure, prepared.cell.store)

    def _release(self, pin_id: str) -> None:
        if pin_id:
            try:
                self.resolver.release(pin_id)
            except TraceError as error:  # it ends by itself, a minute later
                _log.warning("a pin could not be released", pin_id=pin_id, reason=error.reason_name)


def _names(cell: CellProcess, sql: str) -> list[Name]:
    cell.send(Kind.CHECK, sql.encode())
    kind, payload = cell.receive()
    if kind is Kind.NAMES:
        return messages.unpack_names(payload)
    if kind is Kind.FAILED:
        raise failures.of_failure(messages.unpack_failure(payload), cell.store)
    raise ProtocolError(f"{kind} while names were awaited")


def _started(prepared: _Prepared) -> Started:
    pinned = prepared.pinned
    return Started(
        pin=pinned.pin if pinned.datasets else None,
        watermarks=tuple(item.watermark for item in pinned.datasets if item.HasField("watermark")),
        file_count=sum(len(dataset.artifacts) for dataset in prepared.datasets),
        file_bytes=sum(dataset.file_bytes for dataset in prepared.datasets),
    )


def _failure(error: TraceError | CellEndedError | ProtocolError | CellUnavailableError) -> TraceError:
    if isinstance(error, TraceError):
        return error
    if isinstance(error, CellEndedError):
        _log.warning("a cell ended without an answer", signal=error.signal_number, stderr=error.stderr[-1000:])
        return failures.of_end(error)
    return failures.of_defect(error)


def _arrow_stream(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()
