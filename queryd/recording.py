"""What goes on record of a query: told to the dispatcher in batches, beside the queries and never on their way.

A query leaves its record in a queue and goes on. One thread sends what is there, some hundred milliseconds' worth at a
time, and sends it again until the dispatcher has it; each record has an identity, by which it is written once. A batch
that is refused goes again in halves, so that one record at fault is in the end alone, and is lost alone. One that meets
nobody, again and again, lets the others go before it; it is lost once they were taken several times in between. What is
not sent yet when the process is killed is lost; so is what the queue has no room for while no dispatcher can be
reached. What is lost is counted and logged.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice

import grpc

from kernel.errors import TraceError, from_rpc_error
from kernel.telemetry import get_logger
from traceapi.control.v1.dataset_service_pb2_grpc import DatasetServiceStub
from traceapi.control.v1.query_record_pb2 import QueryRecord, RecordQueriesRequest
from traceapi.types.v1.errors_pb2 import ErrorReason

_log = get_logger("queryd.recording")
_CALL_SECONDS = 10.0
# Sent again, the same batch would be answered the same.
_FINAL = frozenset({ErrorReason.ERROR_REASON_INVALID_REQUEST, ErrorReason.ERROR_REASON_MESSAGE_TOO_LARGE})
# No word on the records: for these none is lost.
_AWAY = frozenset({ErrorReason.ERROR_REASON_UNAVAILABLE, ErrorReason.ERROR_REASON_OVERLOADED})

Send = Callable[[Sequence[QueryRecord], float], None]
"""Puts records on record, within so many seconds. Raises TraceError."""


@dataclass(frozen=True, slots=True)
class Pace:
    """Times in seconds, sizes in records where they do not say bytes."""

    gather: float = 0.3
    """From the first record of a batch to its sending."""
    again: float = 1.0
    """From a failure to the next try."""
    last: float = 5.0
    """What closing may take."""
    batch: int = 500
    batch_bytes: int = 4 << 20
    """Only a record that is larger itself makes a larger batch."""
    room: int = 20_000
    tries: int = 5
    """Of a record that is alone, before it is lost; of a batch, before it is halved while no dispatcher is there."""


class Recorder:
    """The queue and its thread. `record` may be called from any thread."""

    def __init__(self, send: Send, pace: Pace | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._send = send
        self._pace = pace or Pace()
        self._clock = clock
        self._queue: deque[QueryRecord] = deque()
        self._changed = threading.Condition()
        self._closing = threading.Event()
        self._end = 0.0
        self._lost = 0
        # Of the thread alone: what a batch has at most by now, and how often the one at hand has failed.
        self._size, self._tries = self._pace.batch, 0
        # How often records were taken; of each one that let others go before it, how often some were, and when last.
        self._taken = 0
        self._passed = dict[str, tuple[int, int]]()
        self._thread = threading.Thread(target=self._run, name="records", daemon=True)
        self._thread.start()

    @property
    def lost(self) -> int:
        """Records that the queue had no room for, that were refused, or that could not be sent before the end."""
        with self._changed:
            return self._lost

    def record(self, record: QueryRecord) -> None:
        """Returns at once, whatever becomes of it."""
        with self._changed:
            full = len(self._queue) >= self._pace.room
            if not full:
                self._queue.append(record)
                self._changed.notify_all()
        if full:
            self._lose(1, "there is no room for them")

    def close(self) -> None:
        """Sends the rest, as long as that may take. Can be repeated."""
        with self._changed:
            if not self._closing.is_set():
                self._end = self._clock() + self._pace.last
                self._closing.set()
                self._changed.notify_all()
        self._thread.join()

    def _run(self) -> None:
        while batch := self._next():
            error = self._sent(batch)
            if error is None:
                self._taken += 1
                self._done(len(batch))
                self._size = min(2 * self._size, self._pace.batch)
            elif error.reason not in _FINAL and not self._has_time():
                break
            else:
                self._refused(batch, error)
        if self._queue:
            self._lose(len(self._queue), "no dispatcher took them before this process ended")

    def _sent(self, batch: Sequence[QueryRecord]) -> TraceError | None:
        """Why they were not taken. A defect is an error like others: nobody else would send what comes after it."""
        try:
            self._send(batch, self._seconds())
        except TraceError as error:
            return error
        except Exception as error:  # noqa: BLE001 - as said above
            _log.exception("records could not be sent")
            return TraceError(ErrorReason.ERROR_REASON_INTERNAL, f"a defect: {type(error).__name__}")
        return None

    def _refused(self, batch: Sequence[QueryRecord], error: TraceError) -> None:
        """Halves the batch, or loses the one that is alone, or leaves it as it is; then waits where that may help.

        A single record that cannot be stored would otherwise keep all behind it, or all beside it, off the record.
        """
        self._tries += 1
        final, away, spent = error.reason in _FINAL, error.reason in _AWAY, self._tries >= self._pace.tries
        alone = len(batch) == 1
        if alone and (final or (spent and (not away or self._passes(batch[0])))):
            self._done(1)
            self._lose(1, error.message, query_id=batch[0].query_id, actor=batch[0].actor, reason=error.reason_name)
            return
        _log.warning("queries are not on record yet", count=len(batch), reason=error.reason_name)
        if not alone and (spent or not away):
            self._size, self._tries = len(batch) // 2, 0
        if not final:
            self._closing.wait(self._pace.again)

    def _passes(self, record: QueryRecord) -> bool:
        """Lets the others go before the first of the queue. Whether they were taken often enough meanwhile: then it is
        at fault, and not who should take it."""
        times, last = self._passed.get(record.record_id, (0, self._taken))
        times += self._taken > last
        if times >= self._pace.tries:
            return True
        self._passed[record.record_id] = times, self._taken
        self._tries = 0
        with self._changed:
            self._queue.rotate(-1)
        return False

    def _done(self, count: int) -> None:
        """The first of the queue are on record, or never will be."""
        self._tries = 0
        with self._changed:
            for _ in range(count):
                self._passed.pop(self._queue.popleft().record_id, None)

    def _has_time(self) -> bool:
        return not self._closing.is_set() or self._clock() + self._pace.again < self._end

    def _next(self) -> list[QueryRecord]:
        """What is to be sent, once there is something and more has had time to come; nothing at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._closing.is_set())
        self._closing.wait(self._pace.gather)
        with self._changed:
            if self._closing.is_set() and self._clock() >= self._end:
                return []
            return self._first()

    def _first(self) -> list[QueryRecord]:
        batch, size = list[QueryRecord](), 0
        for record in islice(self._queue, self._size):
            size += record.ByteSize()
            if batch and size > self._pace.batch_bytes:
                break
            batch.append(record)
        return batch

    def _seconds(self) -> float:
        return max(0.1, min(_CALL_SECONDS, self._end - self._clock())) if self._closing.is_set() else _CALL_SECONDS

    def _lose(self, count: int, why: str, **facts: str) -> None:
        with self._changed:
            self._lost += count
            lost = self._lost
        _log.error("queries will not be on record", count=count, lost=lost, why=why, **facts)


def sender(stub: DatasetServiceStub) -> Send:
    """By RecordQueries."""

    def send(records: Sequence[QueryRecord], seconds: float) -> None:
        try:
            stub.RecordQueries(RecordQueriesRequest(records=records), timeout=seconds)
        except grpc.RpcError as error:
            raise from_rpc_error(error) from error

    return send
