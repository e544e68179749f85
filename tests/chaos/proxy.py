"""A proxy between any two programs: cuts connections in the middle of a frame, refuses new ones, holds one way up.

It runs an event loop in a thread of its own; every method may be called from the thread that started it. What it does
to whom is asked for by its caller; where a cut falls within the bytes comes from the seed.
"""

import asyncio
import random
import threading
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Self, TypeVar

T = TypeVar("T")

_CHUNK = 65_536
_CUT_WITHIN_BYTES = 400
_CUT_AFTER_SECONDS = 0.1


class Way(Enum):
    """Which way bytes go."""

    REQUESTS = "requests"
    REPLIES = "replies"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where to listen or to connect: a TCP port of loopback, or a unix socket."""

    port: int = 0
    path: Path | None = None

    @classmethod
    def parse(cls, address: str) -> "Endpoint":
        """`127.0.0.1:port`."""
        return cls(int(address.rpartition(":")[2]))


@dataclass(slots=True, eq=False)
class _Link:
    """One connection through a route."""

    client: asyncio.StreamWriter
    server: asyncio.StreamWriter
    left: int | None = None
    """Bytes that still pass before it is cut; None: it is whole."""

    def abort(self) -> None:
        for writer in (self.client, self.server):
            writer.transport.abort()


@dataclass(slots=True, eq=False)
class _Route:
    target: Endpoint | None
    open: bool = True
    ways: dict[Way, asyncio.Event] = field(default_factory=dict)
    links: set[_Link] = field(default_factory=set)


class Proxy:
    """Routes by name. Use as a context."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._routes: dict[str, _Route] = {}
        self._servers: list[asyncio.Server] = []
        self._tasks: set[asyncio.Task[None]] = set()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def add(self, name: str, listen: Endpoint, target: Endpoint | None = None) -> int:
        """A route; answers the port that it listens on, 0 for a unix socket."""
        return asyncio.run_coroutine_threadsafe(self._add(name, listen, target), self._loop).result()

    def retarget(self, name: str, target: Endpoint | None) -> None:
        """For connections from now on; without a target there are none."""

        def change() -> None:
            self._routes[name].target = target

        self._call(change)

    def cut(self, names: Collection[str]) -> int:
        """Ends every connection, each after a few more bytes; answers how many there were."""
        return self._call(lambda: sum(self._cut(self._routes[name]) for name in names))

    def refuse(self, names: Collection[str], *, refused: bool) -> None:
        """Whether new connections are ended at once."""

        def change() -> None:
            for name in names:
                self._routes[name].open = not refused

        self._call(change)

    def hold(self, names: Collection[str], way: Way) -> None:
        """From now on nothing passes that way; what is on its way is kept."""

        def change() -> None:
            for name in names:
                self._routes[name].ways[way].clear()

        self._call(change)

    def release(self, names: Collection[str]) -> None:
        """Everything passes again, both ways."""

        def change() -> None:
            for name in names:
                for event in self._routes[name].ways.values():
                    event.set()

        self._call(change)

    def _call(self, function: Callable[[], T]) -> T:
        async def run() -> T:
            return function()

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result()

    async def _add(self, name: str, listen: Endpoint, target: Endpoint | None) -> int:
        route = self._routes[name] = _Route(target)
        for way in Way:
            route.ways[way] = asyncio.Event()
            route.ways[way].set()

        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await self._accept(route, reader, writer)

        if listen.path is not None:
            self._servers.append(await asyncio.start_unix_server(accept, listen.path))
            return 0
        server = await asyncio.start_server(accept, "127.0.0.1", listen.port)
        self._servers.append(server)
        port: int = server.sockets[0].getsockname()[1]
        return port

    async def _accept(self, route: _Route, reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        target = route.target
        if not route.open or target is None:
            client.transport.abort()
            return
        try:
            if target.path is not None:
                answers, server = await asyncio.open_unix_connection(target.path)
            else:
                answers, server = await asyncio.open_connection("127.0.0.1", target.port)
        except OSError:
            client.transport.abort()
            return
        link = _Link(client, server)
        route.links.add(link)
        task = self._loop.create_task(self._serve(route, link, reader, answers))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(
        self, route: _Route, link: _Link, requests: asyncio.StreamReader, replies: asyncio.StreamReader
    ) -> None:
        """Until both sides have ended, or one was lost."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pump(route, link, requests, link.server, Way.REQUESTS))
                group.create_task(self._pump(route, link, replies, link.client, Way.REPLIES))
        finally:
            link.abort()
            route.links.discard(link)

    async def _pump(
        self, route: _Route, link: _Link, source: asyncio.StreamReader, sink: asyncio.StreamWriter, way: Way
    ) -> None:
        """Passes bytes on until one side ends, or the link is cut."""
        try:
            while data := await source.read(_CHUNK):
                await route.ways[way].wait()
                if link.left is not None:
                    data = data[: link.left]
                    link.left -= len(data)
                sink.write(data)
                await sink.drain()
                if link.left == 0:
                    link.abort()
            sink.write_eof()
        except OSError:
            link.abort()

    def _cut(self, route: _Route) -> int:
        for link in route.links:
            link.left = self._rng.randrange(_CUT_WITHIN_BYTES)
            self._loop.call_later(_CUT_AFTER_SECONDS, link.abort)
        cut = len(route.links)
        route.links.clear()
        return cut

    async def _close(self) -> None:
        for server in self._servers:
            server.close()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
