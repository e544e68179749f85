"""What happens beside a query while it runs: its time passes, and its pin is kept alive."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

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


class _Lease:
    """When to renew it, and when it has surely ended, both by the monotonic clock."""

    def __init__(self, now: float, seconds: float) -> None:
        self.renewal = now + seconds / 3
        self.end = now + seconds


@dataclass(frozen=True, slots=True)
class Watcher:
    """`abandon` ends a call whose client does not read."""

    resolver: Resolver
    clock: Callable[[], float] = time.monotonic

    @contextmanager
    def watching(self, query: RunningQuery, timeout: float, abandon: Callable[[], object]) -> Iterator[None]:
        """Stops the query at its deadline, or when its pin is lost, until the block is left."""
        thread = threading.Thread(
            target=self._watch, args=(query, timeout, abandon), name=f"watch {query.identity.query_id}", daemon=True
        )
        thread.start()
        try:
            yield
        finally:
            query.end()

    def _watch(self, query: RunningQuery, timeout: float, abandon: Callable[[], object]) -> None:
        lease = _Lease(self.clock(), self.resolver.lease_seconds)
        while not query.ended.wait(max(min(query.deadline, lease.renewal) - self.clock(), 0)):
            now = self.clock()
            if now >= query.deadline:
                message = f"the query ran for {timeout:g} s, its time limit, and was stopped"
                query.stop(TraceError(ErrorReason.ERROR_REASON_QUERY_LIMIT, message, metadata={"limit": "time"}))
                break
            error = self._renew(query.pin_id) if query.pin_id else None
            if error is None:
                lease = _Lease(now, self.resolver.lease_seconds)
            elif error.reason in _FINAL or now >= lease.end:
                query.stop(error)
                break
            else:
                lease.renewal = now + _RENEW_AGAIN_SECONDS
        if not query.ended.wait(_SLOW_CLIENT_SECONDS):
            abandon()

    def _renew(self, pin_id: str) -> TraceError | None:
        try:
            self.resolver.renew(pin_id)
        except TraceError as error:
            _log.warning("a pin could not be renewed", pin_id=pin_id, reason=error.reason_name)
            return error
        return None
