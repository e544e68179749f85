"""The built-in wake-up channel: task ids over gRPC streams, as credits allow. Owns memory only; knows no database."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager

MAX_BATCH = 1000
"""Task ids that one message carries at most."""


class Watcher:
    """One worker's open stream. Its credits bound what waits for it, so its memory is bounded."""

    def __init__(self, worker_id: str, queues: frozenset[str], granted: int, on_credit: Callable[[], None]) -> None:
        self.worker_id = worker_id
        self.queues = queues
        self._credits = granted
        self._on_credit = on_credit
        self._pending: deque[str] = deque()
        self._wake = asyncio.Event()
        self._closed = False

    @property
    def credits(self) -> int:
        return self._credits

    def grant(self, granted: int) -> None:
        """The worker can take more; or less, where it is negative. What is on its way counts against later grants."""
        self._credits += granted
        if granted > 0:
            self._on_credit()

    def put(self, task_ids: Sequence[str]) -> None:
        """Takes one credit per id; of wake-ups the caller sends no more than there are."""
        self._credits -= len(task_ids)
        self._pending.extend(task_ids)
        self._wake.set()

    def close(self) -> None:
        """Ends `batches` once what is pending is handed out. Idempotent."""
        self._closed = True
        self._wake.set()

    async def batches(self) -> AsyncIterator[list[str]]:
        """What was put, in order, many ids at a time, until the watcher is closed."""
        while True:
            while self._pending:
                size = min(len(self._pending), MAX_BATCH)
                yield [self._pending.popleft() for _ in range(size)]
            if self._closed:
                return
            self._wake.clear()
            await self._wake.wait()


class StreamChannel:
    """All open streams of this dispatcher; a `WakeupChannel`.

    A worker that goes away loses its pending wake-ups: the sweep re-sends.
    """

    def __init__(self) -> None:
        self._watchers: list[Watcher] = []
        self._on_credit: Callable[[], None] = lambda: None
        self._turn = 0
        self._closed = False

    def on_credit(self, signal: Callable[[], None]) -> None:
        """`signal` is called when there is new room."""
        self._on_credit = signal

    @contextmanager
    def watch(self, worker_id: str, queues: Sequence[str], granted: int) -> Iterator[Watcher]:
        """A worker's stream while it lasts."""
        watcher = Watcher(worker_id, frozenset(queues), granted, lambda: self._on_credit())
        if self._closed:
            watcher.close()
        self._watchers.append(watcher)
        self._on_credit()
        try:
            yield watcher
        finally:
            self._watchers.remove(watcher)

    def close(self) -> None:
        """Ends every stream, also later ones: this dispatcher drains."""
        self._closed = True
        for watcher in self._watchers:
            watcher.close()

    @property
    def watcher_count(self) -> int:
        return len(self._watchers)

    def served_queues(self) -> Set[str]:
        return {queue for watcher in self._watchers for queue in watcher.queues}

    def nudge(self, worker_id: str, task_ids: Sequence[str]) -> None:
        """Costs credits like any wake-up, also those that the worker has not granted yet."""
        for watcher in self._watchers:
            if watcher.worker_id == worker_id:
                watcher.put(task_ids[:MAX_BATCH])

    def room(self) -> Mapping[str, int]:
        room: dict[str, int] = {}
        for watcher in self._watchers:
            for queue in watcher.queues:
                if watcher.credits > 0:
                    room[queue] = room.get(queue, 0) + watcher.credits
        return room

    def send(self, queue: str, task_ids: Sequence[str]) -> None:
        """Spreads ids evenly over the queue's watchers, within their credits.

        Credits may have been taken back while the ids were released. These ids go out all the same: nobody else knows
        of them, and the worker's later grants count them.
        """
        self._turn += 1
        watchers = [watcher for watcher in self._watchers if queue in watcher.queues]
        turn = self._turn % len(watchers) if watchers else 0
        # Who has few credits comes first: what it leaves is spread over all that follow.
        in_line = sorted(watchers[turn:] + watchers[:turn], key=lambda watcher: watcher.credits)
        rest = _spread(task_ids, in_line, within_credits=True)
        _spread(rest, in_line, within_credits=False)


def _spread(task_ids: Sequence[str], watchers: Sequence[Watcher], *, within_credits: bool) -> Sequence[str]:
    """What is left over."""
    rest = task_ids
    for left, watcher in zip(range(len(watchers), 0, -1), watchers, strict=True):
        fair = -(-len(rest) // left)
        share = min(max(watcher.credits, 0), fair) if within_credits else fair
        if share:
            watcher.put(rest[:share])
            rest = rest[share:]
    return rest
