"""The built-in stream: ids as credits allow. Credits say how many more ids the worker is ready for; where its window
shrinks they are taken back, so that others get what it would leave lying."""

from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from kernel.errors import TraceError
from kernel.telemetry import get_logger
from traceapi.worker.v1.worker_service_pb2 import WatchStart, WatchWakeupsRequest
from wrapper.backoff import Backoff
from wrapper.dispatcher_client import Dispatcher
from wrapper.wakeups.port import Inbox

_MAX_CREDITS = 10_000
_log = get_logger("wrapper.wakeups")


@dataclass(slots=True)
class _Watch:
    """One call. gRPC goes on asking for requests after it has failed: what it counts as granted then must not be
    missing on the next one."""

    credits: int  # granted to the dispatcher and not used yet
    over: bool = False


class StreamWakeups:
    """One open stream to the dispatcher."""

    def __init__(self, dispatcher: Dispatcher, queues: Sequence[str]) -> None:
        self._dispatcher = dispatcher
        self._queues = queues
        self._open = False

    @property
    def connected(self) -> bool:
        return self._open and self._dispatcher.connected

    async def listen(self, inbox: Inbox) -> None:
        backoff = Backoff()
        while True:
            watch = _Watch(min(inbox.room_left(), _MAX_CREDITS))
            try:
                async with aclosing(self._dispatcher.watch(self._requests(watch, inbox))) as responses:
                    async for response in responses:
                        backoff.reset()
                        watch.credits -= len(response.task_ids)
                        inbox.wake(response.task_ids)
            except TraceError as error:
                _log.warning("the stream of wake-ups ended", reason=error.reason_name, message=str(error))
            finally:
                watch.over = True
                self._open = False
            await backoff.sleep()

    def answered(self, task_ids: Sequence[str]) -> None:
        """Nothing to do: a message of the stream is gone once it has arrived."""

    async def _requests(self, watch: _Watch, inbox: Inbox) -> AsyncIterator[WatchWakeupsRequest]:
        """The opening message, then credits as room comes free, and back as it goes."""
        self._open = not watch.over
        yield WatchWakeupsRequest(
            start=WatchStart(worker_id=self._dispatcher.worker_id, queues=self._queues, credits=watch.credits)
        )
        while not watch.over:
            due = max(-_MAX_CREDITS, min(inbox.room_left() - watch.credits, _MAX_CREDITS))
            if abs(due) >= inbox.least_grant():
                watch.credits += due
                yield WatchWakeupsRequest(credits=due)
            else:
                await inbox.room_changes()
