"""Looks at deployments that are watched: one for all who watch the same one.

A look counts tasks, and takes the longer the more there are. So those who watch one deployment take the same looks, one
at a time, and between two of them is nine times as long as a look took: however many watch, a tenth of one connection
is theirs. Who comes anew gets a look that began after it came, since what a watch begins with is the present.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Answer = TypeVar("Answer")

INTERVAL_SECONDS = 0.5
_REST = 9.0
_LONGEST_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class _Look(Generic[Answer]):
    answer: Answer
    began: float
    took: float

    @property
    def next_at(self) -> float:
        return self.began + min(max(INTERVAL_SECONDS, self.took * (1 + _REST)), _LONGEST_SECONDS)


@dataclass(slots=True)
class _Watched(Generic[Answer]):
    """A deployment that somebody watches."""

    watchers: int = 0
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    latest: _Look[Answer] | None = None


class Watches(Generic[Answer]):
    """Forgets a deployment with the last one who watches it. `now` and `sleep` are those of the loop."""

    def __init__(
        self,
        look: Callable[[str], Awaitable[Answer]],
        now: Callable[[], float] | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._look = look
        self._now = now or (lambda: asyncio.get_running_loop().time())
        self._sleep = sleep
        self._watched: dict[str, _Watched[Answer]] = {}

    async def looks(self, deployment_id: str) -> AsyncGenerator[Answer, None]:
        """Without end; close it. Raises what a look raises."""
        watched = self._watched.setdefault(deployment_id, _Watched())
        watched.watchers += 1
        try:
            look = await self._turn(watched, deployment_id, since=self._now())
            while True:
                yield look.answer
                await self._sleep(max(look.next_at - self._now(), 0.0))
                look = await self._turn(watched, deployment_id, since=look.began, seen=look)
        finally:
            watched.watchers -= 1
            if not watched.watchers:
                del self._watched[deployment_id]

    async def _turn(
        self, watched: _Watched[Answer], deployment_id: str, *, since: float, seen: _Look[Answer] | None = None
    ) -> _Look[Answer]:
        """The latest look, where it was begun since then and is not the one that was seen; else another one."""
        async with watched.turn:
            latest = watched.latest
            if latest is None or latest is seen or latest.began < since:
                began = self._now()
                answer = await self._look(deployment_id)
                latest = watched.latest = _Look(answer, began, self._now() - began)
            return latest
