"""What goes to the dispatcher in batches: many units' emits, or completions, in one call.

Cost is per message, not per item, so whatever arrives while calls are under way, and within a few milliseconds then,
travels together; what comes alone goes at once. Entries of one unit stay together and in order. A failed call is
repeated, without what has been lost meanwhile, until it goes through; a call that is refused as a whole is cut in
halves until the culprit stands alone.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from kernel.errors import TraceError
from kernel.telemetry import get_logger
from traceapi.types.v1 import errors_pb2
from wrapper.backoff import Backoff

_LINGER_SECONDS = 0.002
_MAX_ITEMS = 1000
_MAX_BYTES = 6 << 20
_CALLS_AT_ONCE = 4
# The dispatcher would refuse the same message again: some item of it breaks the contract, or it is too large.
_OF_THE_MESSAGE = frozenset({errors_pb2.ERROR_REASON_INVALID_REQUEST, errors_pb2.ERROR_REASON_MESSAGE_TOO_LARGE})

_log = get_logger("wrapper.outbox")


class Weighed(Protocol):
    """What has a size on the wire, as messages do."""

    def ByteSize(self) -> int: ...


Item = TypeVar("Item", bound=Weighed)
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True, eq=False)
class _Entry(Generic[Item, Result]):
    """Items of one unit, and who waits for their verdicts."""

    items: Sequence[Item]
    count: int
    size: int
    alive: Callable[[], bool]
    verdicts: "asyncio.Future[Sequence[Result] | None]"

    def settle(self, results: Sequence[Result] | None) -> None:
        if not self.verdicts.done():
            self.verdicts.set_result(results)


class Outbox(Generic[Item, Result]):
    """One kind of item. `refused` makes the verdict of an item whose call was refused for good; `count` says how many
    items of the contract it is."""

    def __init__(
        self,
        send: Callable[[Sequence[Item]], Awaitable[Sequence[Result]]],
        refused: Callable[[Item, TraceError], Result],
        count: Callable[[Item], int] = lambda _item: 1,
    ) -> None:
        self._send = send
        self._refused = refused
        self._count = count
        self._waiting: deque[_Entry[Item, Result]] = deque()
        self._arrived = asyncio.Event()
        self._calls = asyncio.Semaphore(_CALLS_AT_ONCE)
        self._under_way = 0

    async def put(self, items: Sequence[Item], alive: Callable[[], bool]) -> Sequence[Result] | None:
        """The verdicts, in order; None when the lease was lost before there were any. At most 1,000 items."""
        size, count = sum(item.ByteSize() for item in items), sum(self._count(item) for item in items)
        entry: _Entry[Item, Result] = _Entry(items, count, size, alive, asyncio.get_running_loop().create_future())
        self._waiting.append(entry)
        self._arrived.set()
        return await entry.verdicts

    async def run(self) -> None:
        """Sends what arrives, until cancelled."""
        async with asyncio.TaskGroup() as group:
            while True:
                await self._arrived.wait()
                if self._under_way:
                    await asyncio.sleep(_LINGER_SECONDS)
                await self._calls.acquire()
                self._under_way += 1
                group.create_task(self._deliver(self._take()))
                if not self._waiting:
                    self._arrived.clear()

    def _take(self) -> list[_Entry[Item, Result]]:
        """The next call's entries: always at least one, then as many as fit."""
        taken: list[_Entry[Item, Result]] = []
        count = size = 0
        while self._waiting:
            entry = self._waiting[0]
            if taken and (count + entry.count > _MAX_ITEMS or size + entry.size > _MAX_BYTES):
                break
            taken.append(self._waiting.popleft())
            count += entry.count
            size += entry.size
        return taken

    async def _deliver(self, entries: list[_Entry[Item, Result]]) -> None:
        try:
            await self._persist(entries)
        finally:
            self._under_way -= 1
            self._calls.release()

    async def _persist(self, entries: list[_Entry[Item, Result]]) -> None:
        backoff = Backoff()
        while True:
            for entry in entries:
                if not entry.alive():
                    entry.settle(None)
            entries = [entry for entry in entries if not entry.verdicts.done()]
            if not entries:
                return
            try:
                results = await self._send([item for entry in entries for item in entry.items])
            except TraceError as error:
                if error.reason in _OF_THE_MESSAGE:
                    await self._cut(entries, error)
                    return
                _log.warning(
                    "call to the dispatcher failed, to be repeated", reason=error.reason_name, message=str(error)
                )
                await backoff.sleep(error.retry_after)
                continue
            position = 0
            for entry in entries:
                entry.settle(results[position : position + len(entry.items)])
                position += len(entry.items)
            return

    async def _cut(self, entries: list[_Entry[Item, Result]], error: TraceError) -> None:
        """One bad item must not hold the others up."""
        if len(entries) == 1:
            entries[0].settle([self._refused(item, error) for item in entries[0].items])
            return
        middle = len(entries) // 2
        await self._persist(entries[:middle])
        await self._persist(entries[middle:])
