"""Looks at deployments that are watched: one for all who watch the same one.

A look counts tasks, and takes the longer the more there are. So those who watch one deployment take the same looks, one
at a time, and after each comes a rest of nine times as long as it took: however many watch, come and go, a tenth of one
connection is theirs. Who comes anew waits for a look that began after it came, since what a watch begins with is the
present; but where the rest goes on for longer than five seconds, it begins with the last look's answer.

A look is nobody's own: whoever of those that wait for it leaves disturbs no other, and it is cut off when none of them
is left. Who came after it began does not wait for it: to see it end would be no use.

A look that fails is a look too: all who waited for it hear of it, and whoever asks again at once, as clients do of a
database that is away, waits until it is rested from: for as long as it took, since it may be back by then. So is one
that was cut off; of that nobody hears, and nobody has an answer to make do with.
"""

import asyncio
import math
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Answer = TypeVar("Answer")

INTERVAL_SECONDS = 0.5
_REST = 9.0
_PATIENCE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class _Look(Generic[Answer]):
    """`next_at`: when those who have seen it may look again."""

    began: float
    next_at: float
    answer: Answer | None = None
    failed: Exception | None = None

    def told(self) -> Answer:
        """Raises what the look raised."""
        if self.answer is None:
            raise self.failed or RuntimeError("a look has ended without an answer")
        return self.answer


@dataclass(slots=True)
class _Turn:
    """The rest before a look, and the look. `began` is the look's, which those who come in the rest wait for too."""

    task: asyncio.Task[None] | None = None
    began: float = math.inf
    waiting: int = 0

    async def end(self, *, wanted: bool) -> None:
        """Returns at the end of the turn, whatever came of it. It is cut off where nobody is left who `wanted` it."""
        if self.task is None:
            return
        self.waiting += wanted
        try:
            await asyncio.wait([self.task])
        finally:
            self.waiting -= wanted
            if wanted and not self.waiting and not self.task.done():
                self.task.cancel()
                await asyncio.wait([self.task])


@dataclass(slots=True)
class _Watched(Generic[Answer]):
    """A deployment that somebody watches. `latest` is the last look that came to its end; `rested_at` is the end of the
    rest after the last that was begun."""

    watchers: int = 0
    turn: _Turn = field(default_factory=_Turn)
    latest: _Look[Answer] | None = None
    rested_at: float = -math.inf


class Watches(Generic[Answer]):
    """Forgets a deployment that nobody watches once it has rested. `now` and `sleep` are those of the loop."""

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
        self._forget()
        watched = self._watched.setdefault(deployment_id, _Watched())
        watched.watchers += 1
        try:
            look = await self._turn(watched, deployment_id, since=self._now())
            while True:
                yield look.told()
                await self._sleep(max(look.next_at - self._now(), 0.0))
                look = await self._turn(watched, deployment_id, since=look.began, seen=look)
        finally:
            watched.watchers -= 1
            self._forget()

    def _forget(self) -> None:
        """What was left to its rest goes with whoever comes or goes next."""
        now = self._now()
        for deployment_id, watched in list(self._watched.items()):
            if not watched.watchers and watched.rested_at <= now:
                del self._watched[deployment_id]

    async def _turn(
        self, watched: _Watched[Answer], deployment_id: str, *, since: float, seen: _Look[Answer] | None = None
    ) -> _Look[Answer]:
        """The latest look, where it was begun since then and is not the one that was seen; else another one."""
        while True:
            latest = watched.latest
            if latest is not None and latest is not seen and latest.began >= since:
                return latest
            if latest is not None and seen is None and watched.rested_at - self._now() > _PATIENCE_SECONDS:
                return latest
            turn = watched.turn
            if turn.task is None or turn.task.done():
                turn = watched.turn = _Turn()
                turn.task = asyncio.create_task(self._take(watched, turn, deployment_id))
            await turn.end(wanted=turn.began >= since)

    async def _take(self, watched: _Watched[Answer], turn: _Turn, deployment_id: str) -> None:
        """The turn: also of a look that fails; one that is cut off is rested from all the same."""
        if (rest := watched.rested_at - self._now()) > 0:
            await self._sleep(rest)
        began = turn.began = self._now()
        answer: Answer | None = None
        failed: Exception | None = None
        try:
            answer = await self._look(deployment_id)
        except Exception as error:  # noqa: BLE001 - whoever waits for the look raises it
            failed = error
        finally:
            rest = (1.0 if answer is None else _REST) * (self._now() - began)
            next_at = max(self._now() + rest, began + INTERVAL_SECONDS)
            # Those who have seen an answer wait for the interval; those who have not come again at once.
            watched.rested_at = self._now() + rest if answer is not None else next_at
        watched.latest = _Look(began, next_at, answer, failed)
