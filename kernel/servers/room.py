"""How much a listener takes on at once: beyond it a call is refused, with when to come again, and nothing piles up.

A message takes memory from its first byte on, and nobody knows its size before its last. So a call gets a *place*
before anything of its request is read; a few messages of each method *come in* at the same time, while the others wait
in their senders' hands, but for the first 64 KiB of each; and what has come in is counted in bytes until its call has
ended. Methods do not wait for each other: heartbeats pass by large emits.

Streams have places of their own, because they stay. What they read is bounded by each of them: one message at a time.
"""

import asyncio
from types import TracebackType

from kernel.errors import TraceError
from traceapi.types.v1 import errors_pb2

MAX_CALLS = 2_000
MAX_BYTES = 128 * 1024 * 1024
MAX_COMING_IN = 4
MAX_STREAMS = 10_000
RETRY_AFTER = 0.2
"""Seconds after which a refused caller may come back."""
_TURN_SECONDS = 5.0


class Room:
    """The calls of one listener that are being served, and the bytes of their requests. TraceError OVERLOADED where
    there is no room for one more."""

    def __init__(
        self,
        max_calls: int = MAX_CALLS,
        max_bytes: int = MAX_BYTES,
        max_coming_in: int = MAX_COMING_IN,
        max_streams: int = MAX_STREAMS,
    ) -> None:
        self._max_calls = max_calls
        self._max_bytes = max_bytes
        self._max_coming_in = max_coming_in
        self._max_streams = max_streams
        self._calls = self._streams = self._bytes = 0
        self._turns: dict[str, asyncio.Semaphore] = {}

    async def for_request(self, method: str, *, stream: bool) -> "Place":
        """A place for a call with one request, once it is the call's turn to have it read; `stream`: of its answers."""
        if self._bytes >= self._max_bytes:
            raise self._full()
        turns = self._turns.setdefault(method, asyncio.Semaphore(self._max_coming_in))
        self._enter(stream=stream)
        try:
            await self._turn(turns)
        except BaseException:
            self.give_back(0, stream=stream)
            raise
        return Place(self, stream=stream, turns=turns)

    def for_requests(self) -> "Place":
        """A place for a stream of requests."""
        self._enter(stream=True)
        return Place(self, stream=True)

    def _enter(self, *, stream: bool) -> None:
        if self._streams >= self._max_streams if stream else self._calls >= self._max_calls:
            raise self._full()
        self._streams += stream
        self._calls += not stream

    async def _turn(self, turns: asyncio.Semaphore) -> None:
        if not turns.locked():
            await turns.acquire()
            return
        try:
            async with asyncio.timeout(_TURN_SECONDS):
                await turns.acquire()
        except TimeoutError as error:
            raise self._full() from error

    def take(self, size: int) -> None:
        """So many bytes have come in. A request above all room is served where it is alone."""
        if self._bytes and self._bytes + size > self._max_bytes:
            raise self._full()
        self._bytes += size

    def give_back(self, size: int, *, stream: bool) -> None:
        """Of a call that has ended."""
        self._bytes -= size
        self._streams -= stream
        self._calls -= not stream

    def _full(self) -> TraceError:
        return TraceError(
            errors_pb2.ERROR_REASON_OVERLOADED,
            f"{self._calls} calls with {self._bytes} bytes and {self._streams} streams are being served, which is all"
            " that is served at once",
            retry_after=RETRY_AFTER,
        )


class Place:
    """One call's. It is left once, by whoever comes first: the call's handler, or the end of a call that never had one
    because its request did not come."""

    def __init__(self, room: Room, *, stream: bool, turns: asyncio.Semaphore | None = None) -> None:
        self._room = room
        self._stream = stream
        self._turns = turns
        self._size = 0
        self._left = False

    def received(self, size: int) -> None:
        """The request has come in: the next one may. TraceError OVERLOADED where so many bytes are too many."""
        self._pass_turn()
        self._room.take(size)
        self._size = size

    def leave(self) -> None:
        """Nothing of the call is in memory any more."""
        if not self._left:
            self._left = True
            self._pass_turn()
            self._room.give_back(self._size, stream=self._stream)

    def __enter__(self) -> "Place":
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        self.leave()

    def _pass_turn(self) -> None:
        if self._turns is not None:
            self._turns.release()
            self._turns = None
