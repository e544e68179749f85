"""Both ways to be woken, each from a real dispatcher with its duties to an inbox that stands for a worker."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from dispatcher.db.pool import Pool
from dispatcher.duties import Duty, build_duties, run_duties
from dispatcher.tasks.keeping import Keeping
from dispatcher.wakeups.release import Releaser
from dispatcher.wakeups.sqs import SqsChannel
from dispatcher.wakeups.stream import StreamChannel
from kernel.channels import aio_channel
from kernel.ids import new_id
from kernel.sqs import LONG_POLL_SECONDS, sqs_client
from tests.dispatcher.in_process import WORKER, InProcess
from tests.sqs_server import SqsServer
from tests.wakeups.faulty_sqs import FaultySqs
from wrapper.dispatcher_client import Dispatcher
from wrapper.wakeups.port import Wakeups
from wrapper.wakeups.sqs import SqsWakeups
from wrapper.wakeups.stream import StreamWakeups

DEADLINE = 40.0
PREFIX = "test"


@dataclass
class InboxOf:
    """A worker's inbox: the test says how much room there is, and waits for what arrives."""

    room: int = 1000
    arrived: Counter[str] = field(default_factory=Counter)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)
    _more: asyncio.Event = field(default_factory=asyncio.Event)

    def room_left(self) -> int:
        return self.room

    def least_grant(self) -> int:
        return 1

    async def room_changes(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    def set_room(self, room: int) -> None:
        self.room = room
        self._changed.set()

    def wake(self, task_ids: Sequence[str]) -> None:
        self.arrived.update(task_ids)
        self._more.set()

    async def until(self, done: Callable[[], bool]) -> None:
        """Returns when it is so after some arrival."""
        async with asyncio.timeout(DEADLINE):
            while not done():
                self._more.clear()
                await self._more.wait()


@dataclass
class Way:
    """A dispatcher's side and a worker's side, connected."""

    name: str
    dispatcher: InProcess
    wakeups: list[Wakeups]
    channel: SqsChannel | None

    @contextlib.asynccontextmanager
    async def listening(self, inbox: InboxOf) -> AsyncIterator[None]:
        """The worker listens until the end of the block."""
        tasks = [asyncio.create_task(wakeups.listen(inbox)) for wakeups in self.wakeups]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    def answered(self, task_ids: Sequence[str]) -> None:
        for wakeups in self.wakeups:
            wakeups.answered(task_ids)


@contextlib.asynccontextmanager
async def opened(
    name: str,
    dispatcher: InProcess,
    server: SqsServer,
    *,
    unanswered: float = 10.0,
    window: int = 2000,
    sender: FaultySqs | None = None,
) -> AsyncIterator[Way]:
    """`stream` or `sqs`, with all duties of a dispatcher under way."""
    again = timedelta(seconds=unanswered)
    stream = dispatcher.hot.channel
    async with aio_channel(dispatcher.addresses["internal"], token=WORKER, actor_name="worker-1") as grpc_channel:
        wakeups: list[Wakeups] = [StreamWakeups(Dispatcher(grpc_channel, "worker-1", 30.0), ("default",))]
        channel = None
        if name == "sqs":
            location = server.location(PREFIX)
            client = sender if sender is not None else sqs_client(location)
            channel = SqsChannel(location, stream, dispatcher.pool, again, window=window, client=client)  # type: ignore[arg-type]
            wakeups.append(SqsWakeups(location, ("default",), client=sqs_client(location, LONG_POLL_SECONDS)))
        async with _duties(dispatcher.pool, channel, stream, again):
            yield Way(name, dispatcher, wakeups, channel)


@contextlib.asynccontextmanager
async def _duties(
    pool: Pool, channel: SqsChannel | None, stream: StreamChannel, unanswered: timedelta
) -> AsyncIterator[None]:
    releaser = Releaser(pool, channel or stream, unanswered=unanswered, again=stream)
    stream.on_credit(releaser.signal_place)
    duties = build_duties(pool, releaser, unanswered, new_id(), Keeping(timedelta(hours=1), 0)).all
    if channel is not None:
        channel.on_credit(releaser.signal_place)
        duties += [
            Duty("sqs-send", channel.send_pending, channel.wait_to_send),
            Duty("sqs-count", channel.count, channel.wait_to_count),
            Duty("sqs-depths", channel.ask_depths, channel.wait_to_ask),
        ]
    running = asyncio.create_task(run_duties(duties))
    try:
        yield
    finally:
        running.cancel()
        await asyncio.wait([running])
        if channel is not None:
            channel.close()
