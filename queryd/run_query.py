"""The life of a query: admitted, prepared (queryd/preparing.py), streamed, and everything given back.

Runs in the thread of its call. What stops it comes from other threads (queryd/running.py, queryd/watch.py) and reaches
this one as the end of the cell's pipe.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial

from kernel.errors import TraceError
from kernel.ids import IdSource
from kernel.telemetry import get_logger
from queryd import failures, records
from queryd.aftermath import Aftermath, Remains
from queryd.engine.arrow_messages import Envelope
from queryd.engine.frames import Kind, ProtocolError
from queryd.engine.pool import CellUnavailableError
from queryd.engine.process import CellEndedError
from queryd.plan_text import plan_text
from queryd.preparing import Need, Preparation, Prepared
from queryd.query_parts import ArrowMessage, ArrowPart, Description, Explained, Finished, Parts, QueryText
from queryd.resolve import AsOf
from queryd.running import QueryIdentity, RunningQueries, RunningQuery, canceled
from queryd.watch import Watcher
from traceapi.control.v1 import query_record_pb2 as record_pb
from traceapi.types.v1.errors_pb2 import ErrorReason

_log = get_logger("queryd.query")

Record = Callable[[record_pb.QueryRecord], None]
"""Puts an ended query on record. Returns at once."""

OnStart = Callable[[RunningQuery], Callable[[], object]]
"""Hears of a query once it has its place; answers how a call is ended whose client does not read."""


@dataclass(frozen=True, slots=True)
class QueryRunner:
    """Runs queries, each in the thread that asks. One for each queryd."""

    preparation: Preparation
    queries: RunningQueries
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
            prepared = self.preparation.prepared(query, text, held, Need.ROWS)
            prepared.cell.send(Kind.RUN, b"")
            yield prepared.started
            query.arrow_bytes = len(prepared.schema)
            yield from self._messages(query, prepared, envelope)
            query.check()
            yield Finished(query.row_count, query.arrow_bytes, self.clock() - begin)

    def explain(self, text: QueryText, on_start: OnStart) -> Explained:
        """What the query would read, without running it. Raises TraceError."""
        with ExitStack() as held, self._place(text, self.clock(), on_start, held) as query:
            prepared = self.preparation.prepared(query, text, held, Need.PLAN)
            prepared.cell.send(Kind.EXPLAIN, b"")
            payload = self.preparation.complaints.awaited(prepared.cell, prepared.given, Kind.PLAN)
            plan = plan_text(payload.decode(errors="replace")).replace(f"{prepared.cell.store}/", "")
            return Explained(prepared.datasets, plan)

    def describe(self, text: QueryText, on_start: OnStart) -> Description:
        """What the answer will look like, and the values of the text's parameters. Raises TraceError."""
        with ExitStack() as held, self._place(text, self.clock(), on_start, held) as query:
            prepared = self.preparation.prepared(query, text, held, Need.SCHEMA)
            if not prepared.checked.parameters:
                return Description(prepared.schema, b"")
            prepared.cell.send(Kind.TYPE, b"")
            parameters = self.preparation.complaints.awaited(prepared.cell, prepared.given, Kind.TYPED)
            return Description(prepared.schema, parameters)

    @contextmanager
    def _place(self, text: QueryText, begin: float, on_start: OnStart, held: ExitStack) -> Iterator[RunningQuery]:
        """Everything that a query holds is given back when the block is left, however it is left; what is `held` last,
        when the cell that reads it is gone."""
        identity = QueryIdentity(text.query_id, text.caller, text.sql, _as_of(text.as_of), datetime.now(UTC))
        query = RunningQuery(identity, begin + text.timeout)
        failure: TraceError | None = TraceError(ErrorReason.ERROR_REASON_INTERNAL, "a defect")
        with self.watcher.watching(query, text.timeout, on_start(query)), self._admitted(query, begin) as clear:
            held.callback(clear)  # the first of what is held, so the last to be let go of
            try:
                yield query
                failure = None
            except (TraceError, CellEndedError, ProtocolError, CellUnavailableError) as error:
                failure = failures.with_query(query.stopped or _failure(error), query.identity.query_id)
                raise failure from error
            except GeneratorExit:
                failure = query.stopped or canceled("its answer is not read any more")
                raise
            finally:
                tell = partial(self._ended, query, failure, self.clock() - begin)
                self.aftermath.take(Remains(query.end(), held.pop_all(), query.pin_id, tell))

    @contextmanager
    def _admitted(self, query: RunningQuery, begin: float) -> Iterator[Callable[[], None]]:
        """As RunningQueries has it. What waited for a place in vain is told of like all that had one."""
        admitted = False
        try:
            with self.queries.admitted(query) as clear:
                admitted = True
                yield clear
        except TraceError as error:
            if query.entered and not admitted:
                tell = partial(self._ended, query, error, self.clock() - begin)
                self.aftermath.take(Remains(None, ExitStack(), "", tell))
            raise

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

    def _messages(
        self, query: RunningQuery, prepared: Prepared, envelope: Envelope
    ) -> Iterator[ArrowMessage | ArrowPart]:
        while (answered := prepared.cell.receive_answer(envelope)).kind is not Kind.FINISHED:
            if answered.kind not in (Kind.ARROW, Kind.ARROW_PART, Kind.ARROW_END):
                complaints = self.preparation.complaints
                raise complaints.meaning(prepared.cell, prepared.given, answered.kind, answered.payload)
            # The count goes on record, where a number that cannot be stored would keep the record out.
            most = prepared.limits.rows
            if not query.row_count <= answered.row_count <= most:
                raise ProtocolError(f"{answered.row_count} rows, after {query.row_count}, {most} at most")
            if query.arrow_bytes + answered.arrow_bytes > prepared.limits.bytes:
                raise _too_large(prepared.limits.bytes)
            query.row_count = answered.row_count
            query.arrow_bytes += answered.arrow_bytes
            if answered.kind is Kind.ARROW:
                yield ArrowMessage(answered.payload)
            else:
                yield ArrowPart(answered.payload, answered.kind is Kind.ARROW_END)


def _too_large(most: int) -> TraceError:
    message = f"the answer has more than {most:,} bytes: ask for fewer columns or rows"
    return TraceError(ErrorReason.ERROR_REASON_QUERY_LIMIT, message, metadata={"limit": "bytes"})


def _as_of(asked: AsOf) -> record_pb.QueryAsOf.ValueType:
    if asked.pin is not None:
        return record_pb.QUERY_AS_OF_PIN
    return record_pb.QUERY_AS_OF_NOW if asked.deploy_number is None else record_pb.QUERY_AS_OF_DEPLOY


def _failure(error: TraceError | CellEndedError | ProtocolError | CellUnavailableError) -> TraceError:
    if isinstance(error, TraceError):
        return error
    if isinstance(error, CellEndedError):
        _log.warning("a cell ended without an answer", signal=error.signal_number, raised=failures.raised(error.stderr))
        return failures.of_end(error)
    return failures.of_defect(error)
