"""Keeps the leases of everything in hand: one call for all, every third of the lease; and does what the answers say."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Collection

from kernel.errors import TraceError
from kernel.telemetry import get_logger
from traceapi.worker.v1 import worker_service_pb2 as worker_pb2
from traceapi.worker.v1.worker_service_pb2 import HeartbeatItem
from wrapper.backoff import Backoff
from wrapper.dispatcher_client import Dispatcher
from wrapper.unit import Stop, Unit

_MAX_ITEMS = 10_000
_log = get_logger("wrapper.heartbeat")


class Heartbeat:
    """Beats for the units that `held` answers."""

    def __init__(self, dispatcher: Dispatcher, held: Callable[[], Collection[Unit]], lease_seconds: float) -> None:
        self._dispatcher = dispatcher
        self._held = held
        self._lease = lease_seconds
        self._hurried = asyncio.Event()

    def hurry(self) -> None:
        """Beats at once: there is news about something in hand."""
        self._hurried.set()

    async def run(self) -> None:
        """Beats until cancelled. A beat that fails is tried again soon: two thirds of the lease are left."""
        backoff = Backoff(limit=self._lease / 6)
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._hurried.wait(), self._lease / 3)
            self._hurried.clear()
            while (failure := await self._try_beat()) is not None:
                await backoff.sleep(failure.retry_after)
            backoff.reset()

    async def _try_beat(self) -> TraceError | None:
        try:
            await self.beat()
        except TraceError as error:
            _log.warning("heartbeat failed", reason=error.reason_name, message=str(error))
            return error
        return None

    async def beat(self) -> None:
        """Extends every lease that is held now."""
        units = [unit for unit in self._held() if unit.alive()]
        for start in range(0, len(units), _MAX_ITEMS):
            part = units[start : start + _MAX_ITEMS]
            sent = time.monotonic()
            results = await self._dispatcher.heartbeat([_item(unit) for unit in part])
            for unit, result in zip(part, results, strict=True):
                self._obey(unit, result, sent)

    def _obey(self, unit: Unit, result: worker_pb2.HeartbeatResult, sent: float) -> None:
        if result.directive == worker_pb2.DIRECTIVE_CONTINUE:
            unit.lease_until = max(unit.lease_until, sent + self._lease)
        elif result.directive == worker_pb2.DIRECTIVE_RETURN:
            unit.lease_until = max(unit.lease_until, sent + self._lease)
            unit.ask_to_stop(Stop.HAND_BACK, result.reason or "the dispatcher asks for it")
        elif result.directive == worker_pb2.DIRECTIVE_CANCEL:
            unit.ask_to_stop(Stop.CANCEL, result.reason or "canceled")
            # The lease itself stands until its end: time to stop and to say so.
        elif result.directive == worker_pb2.DIRECTIVE_LEASE_LOST:
            unit.ask_to_stop(Stop.LOST, result.reason or "the lease is lost")


def _item(unit: Unit) -> HeartbeatItem:
    """A run has one item: the task that told its progress last, with the stream."""
    return HeartbeatItem(lease=unit.leases[unit.told_by], stream=unit.stream, progress=unit.progress)
