"""What goes on record of a query: told to the dispatcher in batches, beside the queries and never on their way.

A query leaves its record in a queue and goes on. One thread sends what is there, some hundred milliseconds' worth at a
time, and sends it again until the dispatcher has it; each record has an identity, by which it is written once. What is
not sent yet when the process is killed is lost; so is what the queue has no room for while no dispatcher can be
reached, and that is counted and logged.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import grpc

from kernel.errors import TraceError, from_rpc_error
from kernel.telemetry import get_logger
from traceapi.control.v1.dataset_service_pb2_grpc import DatasetServiceStub
from traceapi.control.v1.query_record_pb2 import QueryRecord, RecordQueriesRequest
from traceapi.types.v1.errors_pb2 import ErrorReason

_log = get_logger("queryd.recording")
_CALL_SECONDS = 10.0
# Sent again, these would be answered the same.
_FINAL = frozenset({ErrorReason.ERROR_REASON_INVALID_REQUEST, ErrorReason.ERROR_REASON_PERMISSION_DENIED})

Send = Callable[[Sequence[QueryRecord], float], None]
"""Puts records on record, within so many seconds. Raises TraceError."""


@dataclass(frozen=True, slots=True)
class Pace:
    """Times in seconds, sizes in records."""

    gather: float = 0.3
    """From the first record of a batch to its sending."""
    again: float = 1.0
    """From a failure to the next try."""
    last: float = 5.0
    """What closing may take."""
    batch: int = 500
    room: int = 20_000


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
            try:
                self._send(batch, self._seconds())
            except TraceError as error:
                if error.reason in _FINAL:
                    self._lose(len(batch), error.message)
                elif not self._closing.is_set() or self._clock() + self._pace.again < self._end:
                    _log.warning("queries are not on record yet", count=len(batch), reason=error.reason_name)
                    self._closing.wait(self._pace.again)
                    continue
                else:
                    break
            with self._changed:
                for _ in batch:
                    self._queue.popleft()
        if self._queue:
            self._lose(len(self._queue), "no dispatcher took them before this process ended")

    def _next(self) -> list[QueryRecord]:
        """What is to be sent, once there is something and more has had time to come; nothing at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._closing.is_set())
        self._closing.wait(self._pace.gather)
        with self._changed:
            if self._closing.is_set() and self._clock() >= self._end:
                return []
            return [self._queue[index] for index in range(min(len(self._queue), self._pace.batch))]

    def _seconds(self) -> float:
        return max(0.1, min(_CALL_SECONDS, self._end - self._clock())) if self._closing.is_set() else _CALL_SECONDS

    def _lose(self, count: int, why: str) -> None:
        with self._changed:
            self._lost += count
            lost = self._lost
        _log.error("queries will not be on record", count=count, lost=lost, why=why)


def sender(stub: DatasetServiceStub) -> Send:
    """By RecordQueries."""

    def send(records: Sequence[QueryRecord], seconds: float) -> None:
        try:
            stub.RecordQueries(RecordQueriesRequest(records=records), timeout=seconds)
        except grpc.RpcError as error:
            raise from_rpc_error(error) from error

    return send
