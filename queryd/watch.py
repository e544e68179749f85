"""What happens beside queries while they run: their time passes, and their pins are kept alive.

One thread waits for whatever is due next, of all queries: a query that ends before costs no thread, and wakes none. It
waits for nobody else. A renewal is a call, so it has a thread of its own.
"""

import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from kernel.errors import TraceError
from kernel.telemetry import get_logger
from queryd.resolve import Resolver
from queryd.running import RunningQuery
from traceapi.types.v1.errors_pb2 import ErrorReason

_log = get_logger("queryd.watch")
_RENEW_AGAIN_SECONDS = 1.0
# A client that reads nothing keeps its thread busy even when the query has been stopped; after so long it is dropped.
_SLOW_CLIENT_SECONDS = 10.0
_FINAL = (ErrorReason.ERROR_REASON_PIN_EXPIRED, ErrorReason.ERROR_REASON_PIN_COLLECTED)


@dataclass(eq=False, slots=True)
class _Watch:
    """Of one query. Times are of the monotonic clock; `lease_end` is when its pin has surely ended."""

    query: RunningQuery
    timeout: float
    abandon: Callable[[], object]
    renewal: float
    lease_end: float
    stopped: bool = False
    due: float = field(init=False)

    def __post_init__(self) -> None:
        self.due = min(self.query.deadline, self.renewal)


class Watcher:
    """One for each queryd. `abandon` ends a call whose client does not read."""

    def __init__(self, resolver: Resolver, clock: Callable[[], float] = time.monotonic) -> None:
        self._resolver = resolver
        self._clock = clock
        self._changed = threading.Condition()
        self._watches: set[_Watch] = set()
        self._waits_until = math.inf
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self._thread.start()

    @contextmanager
    def watching(self, query: RunningQuery, timeout: float, abandon: Callable[[], object]) -> Iterator[None]:
        """Stops the query at its deadline, or when its pin is lost, until the block is left."""
        now, lease = self._clock(), self._resolver.lease_seconds
        watch = _Watch(query, timeout, abandon, renewal=now + lease / 3, lease_end=now + lease)
        with self._changed:
            self._watches.add(watch)
            self._heed(watch)
        try:
            yield
        finally:
            query.end()
            with self._changed:
                self._watches.discard(watch)

    def close(self) -> None:
        """Watches nothing more. Can be repeated."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()

    def _heed(self, watch: _Watch) -> None:
        """Has the thread look at a time that may be before the one for which it waits."""
        if watch.due < self._waits_until:
            self._changed.notify_all()

    def _run(self) -> None:
        while (watch := self._next()) is not None:
            try:
                self._look(watch)
            except Exception:  # noqa: BLE001 - a defect of one must not be the end of others' limits, nor of its own
                self._failed(watch)

    def _next(self) -> _Watch | None:
        """The next one whose time has come; None once closed."""
        with self._changed:
            while not self._closed:
                first = min(self._watches, key=lambda watch: watch.due, default=None)
                self._waits_until = math.inf if first is None else first.due
                left = self._waits_until - self._clock()
                if first is not None and left <= 0:
                    first.due = math.inf  # until it is known
                    return first
                self._changed.wait(None if left == math.inf else left)
            return None

    def _look(self, watch: _Watch) -> None:
        now = self._clock()
        if watch.stopped:
            if not watch.query.ended.is_set():
                watch.abandon()
        elif now >= watch.query.deadline:
            message = f"the query ran for {watch.timeout:g} s, its time limit, and was stopped"
            self._stop(watch, TraceError(ErrorReason.ERROR_REASON_QUERY_LIMIT, message, metadata={"limit": "time"}))
        else:
            self._set_due(watch, watch.query.deadline)
            threading.Thread(target=self._renew, args=(watch, now), name="renewal", daemon=True).start()

    def _failed(self, watch: _Watch) -> None:
        """It is looked at again soon: a machine that has no thread to spare now may have one then."""
        _log.exception("a query could not be watched", query_id=watch.query.identity.query_id)
        watch.renewal = self._clock() + _RENEW_AGAIN_SECONDS
        self._set_due(watch, watch.renewal)

    def _renew(self, watch: _Watch, now: float) -> None:
        try:
            self._renew_once(watch, now)
        except Exception:  # noqa: BLE001 - a defect, after which the pin would end unseen
            self._failed(watch)

    def _renew_once(self, watch: _Watch, now: float) -> None:
        pin_id = watch.query.pin_id
        error = self._renewed(pin_id) if pin_id else None
        if error is not None and watch.query.pin_id != pin_id:
            error = None  # it was let go of meanwhile; one that came in its place is younger than this look
        if error is not None and (error.reason in _FINAL or now >= watch.lease_end):
            self._stop(watch, error)
            return
        if error is None:
            lease = self._resolver.lease_seconds
            watch.renewal, watch.lease_end = now + lease / 3, now + lease
        else:
            watch.renewal = now + _RENEW_AGAIN_SECONDS
        self._set_due(watch, min(watch.query.deadline, watch.renewal))

    def _stop(self, watch: _Watch, error: TraceError) -> None:
        watch.query.stop(error)
        self._set_due(watch, self._clock() + _SLOW_CLIENT_SECONDS, stopped=True)

    def _set_due(self, watch: _Watch, due: float, *, stopped: bool = False) -> None:
        """Of one that was stopped while its pin was renewed nothing is put off."""
        with self._changed:
            if not watch.stopped:
                watch.due, watch.stopped = due, stopped
                self._heed(watch)

    def _renewed(self, pin_id: str) -> TraceError | None:
        try:
            self._resolver.renew(pin_id)
        except TraceError as error:
            _log.warning("a pin could not be renewed", pin_id=pin_id, reason=error.reason_name)
            return error
        return None
