"""Queries between the call that asked for them and the call that reads them.

Flight asks in two calls: GetFlightInfo says what the answer will look like, DoGet reads it. The query is begun by the
first and waits here for the second, its cell and its pin with it. A client that does not come in time finds its query
gone, and is served all the same: its ticket says what to run, and at which pin.
"""

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import grpc

from kernel.errors import TraceError
from kernel.telemetry import get_logger
from queryd.asking import Cancellable
from queryd.query_parts import Parts, Started
from queryd.running import RunningQuery, canceled

_log = get_logger("queryd.flight")


class Tie:
    """Ends a query with the call that it belongs to: the one that asked, then none, then the one that reads."""

    def __init__(self, context: grpc.ServicerContext) -> None:
        self._call: grpc.ServicerContext | None = context
        self._query: RunningQuery | None = None

    def start(self, query: RunningQuery) -> Callable[[], object]:
        """As queryd.run_query.OnStart."""
        self._query = query
        if self._call is not None:
            self.to(self._call)
        return self._cancel

    def loosen(self) -> None:
        """The call may end; the query stays."""
        self._call = None

    def tell(self, stop: Cancellable) -> None:
        """From now on it is cancelled when the query is stopped; at once where that has happened."""
        if self._query is not None:
            with suppress(TraceError):
                self._query.asks(stop)

    def check(self) -> None:
        """Raises what its query was stopped with."""
        if self._query is not None:
            self._query.check()

    def to(self, context: grpc.ServicerContext) -> None:
        """From now on it ends with this call."""
        self._call = context
        if not context.add_callback(lambda: self._ended(context)):
            self._ended(context)

    def _ended(self, context: grpc.ServicerContext) -> None:
        if self._call is context and self._query is not None:
            self._query.stop(canceled("the client cancelled the call, or went away"))

    def _cancel(self) -> None:
        if self._call is not None:
            self._call.cancel()


@dataclass(frozen=True, slots=True)
class HeldQuery:
    """A query that has begun: what is left of its parts."""

    query_id: str
    actor: str
    started: Started
    parts: Parts
    tie: Tie

    def end(self) -> None:
        """What it holds is given back, however far it was read."""
        self.parts.close()


class HeldQueries:
    """Those that wait, each for `seconds`. One thread ends those that nobody came for."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._clock = clock
        self._changed = threading.Condition()
        self._held: dict[str, tuple[float, HeldQuery]] = {}  # by age
        self._closed = False
        self._thread = threading.Thread(target=self._expire, name="held queries", daemon=True)
        self._thread.start()

    def hold(self, query: HeldQuery) -> None:
        """It waits from now on, and belongs to no call. When it is stopped it gives back what it holds; who comes in
        time still hears why."""
        query.tie.loosen()
        with self._changed:
            closed = self._closed
            if not closed:
                self._held[query.query_id] = (self._clock() + self._seconds, query)
                self._changed.notify_all()
        if closed:
            query.end()
        else:
            query.tie.tell(_Stop(self, query.query_id))

    def stopped(self, query_id: str) -> None:
        """Of the one of this id, where it still waits."""
        with self._changed:  # so that nobody reads it meanwhile
            _, query = self._held.get(query_id, (0.0, None))
            if query is not None:
                query.end()

    def take(self, query_id: str, actor: str) -> HeldQuery | None:
        """The one of this id, where it still waits, and this actor asked for it."""
        with self._changed:
            _, query = self._held.get(query_id, (0.0, None))
            if query is None or query.actor != actor:
                return None
            del self._held[query_id]
            return query

    def close(self) -> None:
        """Ends all that wait."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()

    def _expire(self) -> None:
        while True:
            with self._changed:
                query = self._next()
            if query is None:
                return
            try:
                query.end()
            except Exception:  # noqa: BLE001 - a defect of one must not leave the others waiting
                _log.exception("a query that nobody read could not be ended", query_id=query.query_id)

    def _next(self) -> HeldQuery | None:
        """Waits for the next one whose time is over; None once closed and empty."""
        while True:
            end, query = next(iter(self._held.values()), (None, None))
            if query is None and self._closed:
                return None
            if query is not None and end is not None and (self._closed or end <= self._clock()):
                del self._held[query.query_id]
                return query
            self._changed.wait(None if end is None else max(end - self._clock(), 0.001))


@dataclass(frozen=True, slots=True)
class _Stop:
    """As queryd.running.Cancellable."""

    held: HeldQueries
    query_id: str

    def cancel(self) -> None:
        self.held.stopped(self.query_id)
