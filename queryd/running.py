"""The queries that run: how each is stopped, and the list of them.

Many things may stop a query: its time, the client's going away, CancelQuery, the loss of its pin. Whichever comes first
decides what the client hears; all of them kill the cell, and the thread that reads from it goes on from there.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

from kernel.errors import TraceError, Violation
from queryd.asking import Cancellable
from queryd.callers import Caller
from queryd.engine.process import CellProcess
from traceapi.control.v1.query_record_pb2 import QueryAsOf
from traceapi.types.v1.dataset_pb2 import Pin
from traceapi.types.v1.errors_pb2 import ErrorReason

# How soon a query that waits for a place hears that it was stopped.
_LOOK_SECONDS = 0.25
_MARGIN_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class QueryIdentity:
    """What is known of a query before it runs."""

    query_id: str
    caller: Caller
    sql: str
    as_of: QueryAsOf.ValueType
    started: datetime


class RunningQuery:
    """One query between its admission and its end. All methods may be called from any thread."""

    def __init__(self, identity: QueryIdentity, deadline: float) -> None:
        """`deadline` is of the monotonic clock."""
        self.identity = identity
        self.deadline = deadline
        self.entered = False
        """It has a place, or waited for one."""
        self.row_count = 0
        self.arrow_bytes = 0
        self.pin_id = ""
        self.pin: Pin | None = None
        self.ended = threading.Event()
        self._halted = threading.Event()  # by a stop, or by the end
        self._lock = threading.Lock()
        self._stopped: TraceError | None = None
        self._cell: CellProcess | None = None
        self._call: Cancellable | None = None

    def stop(self, error: TraceError) -> None:
        """Ends the query with this error, unless it was stopped or has ended before."""
        with self._lock:
            if self._stopped is None and not self.ended.is_set():
                self._stopped = error
            self._halted.set()
            cell, call = self._cell, self._call
        if cell is not None:
            cell.kill()
        if call is not None:
            call.cancel()

    def asks(self, call: Cancellable) -> None:
        """From now on, stopping cancels this call to another program. Raises where it was stopped already."""
        with self._lock:
            self._call = call
            stopped = self._stopped
        if stopped is not None:
            call.cancel()
            raise stopped

    def attach(self, cell: CellProcess) -> None:
        """From now on, stopping kills this cell. Raises where the query was stopped already."""
        with self._lock:
            self._cell = cell
        self.check()

    @property
    def stopped(self) -> TraceError | None:
        """What it was stopped with."""
        with self._lock:
            return self._stopped

    def check(self) -> None:
        """Raises what it was stopped with."""
        error = self.stopped
        if error is not None:
            raise error

    def pause(self, seconds: float) -> None:
        """Waits so long. Raises at once what it was, or is, stopped with."""
        self._halted.wait(seconds)
        self.check()

    def left(self, now: float) -> float:
        """Seconds that something within it may take: a little longer than its time, at the end of which it is stopped,
        and hears of its limit."""
        return max(self.deadline - now, 0.0) + _MARGIN_SECONDS

    def end(self) -> CellProcess | None:
        """Nothing of it runs any more. Can be repeated; the first one gets its cell, killed, to close it."""
        with self._lock:
            self.ended.set()
            self._halted.set()
            cell, self._cell = self._cell, None
        if cell is not None:
            cell.kill()
        return cell


def canceled(message: str) -> TraceError:
    """With which a query is stopped that somebody does not want any more."""
    return TraceError(ErrorReason.ERROR_REASON_QUERY_CANCELED, message)


class RunningQueries:
    """All of them, up to a number; and, up to another, those that wait for a place, in the order in which they came.

    Nobody waits until a query that has ended is cleared away, its process, files and folder; but with those that run
    there are never more of them than twice the places. So processes and their disk are bounded, however slowly they go.
    A query that waits for what is still to come steps aside meanwhile: as many may as there are places.
    """

    def __init__(self, slots: int, waiting: int = 0, retry_after: float = 1.0) -> None:
        self._slots = slots
        self._most_waiting = waiting
        self._retry_after = retry_after
        self._changed = threading.Condition()
        self._queries: dict[str, RunningQuery] = {}
        self._left = 0
        """How many run, or have ended and are not cleared away."""
        self._waiting: deque[RunningQuery] = deque()
        self._aside: set[RunningQuery] = set()
        self._returning = 0

    @contextmanager
    def admitted(self, query: RunningQuery) -> Iterator[Callable[[], None]]:
        """A place for a query while it runs, once there is one; raises what it is stopped with while it waits.

        What it gives is to be called once, when nothing is left of the query.
        OVERLOADED where too many wait already: each of them holds a thread.
        """
        with self._changed:
            self._enter(query)
            try:
                while self._waiting[0] is not query or self._returning or not self._has_place():
                    self._changed.wait(_LOOK_SECONDS)
                    query.check()
            finally:
                self._waiting.remove(query)
                self._changed.notify_all()
            self._queries[query.identity.query_id] = query
            self._left += 1
        try:
            yield self._clear
        finally:
            query.end()
            with self._changed:
                del self._queries[query.identity.query_id]
                self._aside.discard(query)
                self._changed.notify_all()

    @contextmanager
    def aside(self, query: RunningQuery) -> Iterator[None]:
        """While the block lasts the place is another one's, unless too many are aside already. After it the query has a
        place again, before those that wait for their first; raises what it is stopped with while it waits for that.
        """
        with self._changed:
            if len(self._aside) < self._slots:
                self._aside.add(query)
                self._changed.notify_all()
        yield
        with self._changed:
            if query not in self._aside:
                return
            self._returning += 1
            try:
                while not self._has_place():
                    self._changed.wait(_LOOK_SECONDS)
                    query.check()
                self._aside.remove(query)
            finally:
                self._returning -= 1
                self._changed.notify_all()

    def _has_place(self) -> bool:
        aside = len(self._aside)
        return len(self._queries) - aside < self._slots and self._left - aside < 2 * self._slots

    def _clear(self) -> None:
        with self._changed:
            self._left -= 1
            self._changed.notify_all()

    def _enter(self, query: RunningQuery) -> None:
        query_id = query.identity.query_id
        if query_id in self._queries or any(other.identity.query_id == query_id for other in self._waiting):
            violation = Violation("query_id", "a query with this id is running: make a new id for each query")
            raise TraceError(ErrorReason.ERROR_REASON_INVALID_REQUEST, violation.description, violations=(violation,))
        if len(self._waiting) >= self._most_waiting and self._busy() + len(self._waiting) >= self._slots:
            message = f"{self._slots} queries are running, as many as this server takes"
            if self._most_waiting:
                message += f", and {self._most_waiting} wait"
            raise TraceError(ErrorReason.ERROR_REASON_OVERLOADED, message, retry_after=self._retry_after)
        self._waiting.append(query)
        query.entered = True

    def _busy(self) -> int:
        return len(self._queries) - len(self._aside) + self._returning

    def get(self, query_id: str) -> RunningQuery:
        """QUERY_NOT_FOUND where it does not run."""
        with self._changed:
            waiting = (query for query in self._waiting if query.identity.query_id == query_id)
            query = self._queries.get(query_id) or next(waiting, None)
        if query is None:
            message = f"no query {query_id} is running"
            raise TraceError(ErrorReason.ERROR_REASON_QUERY_NOT_FOUND, message, metadata={"query_id": query_id})
        return query

    def all(self) -> list[RunningQuery]:
        """Oldest first; those that wait for a place too."""
        with self._changed:
            return sorted([*self._queries.values(), *self._waiting], key=lambda query: query.identity.started)
