"""Who watches a deployment takes the looks that others take too: they are as many for ten watchers as for one."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass, field

import pytest

from dispatcher.rpc import watching
from dispatcher.rpc.watching import Watches

STARTED = 100.0


@dataclass
class Clock:
    """Time goes on when somebody says so: by a look that takes so long, and when all of those who watch rest."""

    now: float = STARTED
    looks: list[float] = field(default_factory=list)
    looking: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(0))
    at_once: int = 0
    resting: list[tuple[float, asyncio.Event]] = field(default_factory=list)

    async def look(self, deployment_id: str) -> int:
        """Answers its number, from 1; goes on when it is let."""
        self.looks.append(self.now)
        self.at_once += 1
        assert self.at_once == 1, "one look at a time"
        await self.looking.acquire()
        self.at_once -= 1
        return len(self.looks)

    async def sleep(self, seconds: float) -> None:
        woken = asyncio.Event()
        self.resting.append((self.now + seconds, woken))
        await woken.wait()

    def go_on(self) -> None:
        """To the moment at which the first one's rest ends."""
        self.now = min(until for until, _ in self.resting)
        for until, woken in self.resting:
            if until <= self.now:
                woken.set()
        self.resting = [rest for rest in self.resting if rest[0] > self.now]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def watches(clock: Clock) -> Watches[int]:
    return Watches(clock.look, lambda: clock.now, clock.sleep)


async def _settled() -> None:
    """Everybody has come as far as it can."""
    for _ in range(20):
        await asyncio.sleep(0)


async def _next(watches: list[AsyncGenerator[int, None]]) -> list[asyncio.Future[int]]:
    tasks: list[asyncio.Future[int]] = [asyncio.ensure_future(anext(watch)) for watch in watches]
    await _settled()
    return tasks


async def test_those_who_come_during_a_look_share_the_next_one_after_its_rest(
    clock: Clock, watches: Watches[int]
) -> None:
    first = await _next([watches.looks("a")])
    clock.now += 0.1
    later = await _next([watches.looks("a") for _ in range(5)])
    assert clock.looks == [STARTED]
    clock.looking.release()
    clock.looking.release()
    assert await asyncio.gather(*first) == [1]
    await _settled()
    clock.go_on()
    assert await asyncio.gather(*later) == [2, 2, 2, 2, 2]
    assert clock.looks == pytest.approx([STARTED, STARTED + 1.0])


async def test_from_then_on_all_take_the_same_looks(clock: Clock, watches: Watches[int]) -> None:
    """Though they came at different times."""
    all_: list[AsyncGenerator[int, None]] = []
    for _ in range(4):
        all_.append(watches.looks("a"))
        clock.looking.release()
        for answer in await _next(all_[-1:]):
            await answer
        clock.now += 0.1
    waiting = await _next(all_)
    for _ in range(10):
        if all(each.done() for each in waiting):
            waiting = await _next(all_)
        clock.looking.release()
        clock.go_on()
        await _settled()
    assert len(clock.looks) <= 4 + 10
    gaps = [after - before for before, after in zip(clock.looks[4:], clock.looks[5:], strict=False)]
    assert gaps
    assert min(gaps) >= watching.INTERVAL_SECONDS - 1e-9


async def _looked(clock: Clock, watch: AsyncGenerator[int, None], took: float) -> int:
    """The next answer of a watch, whose look takes so long."""
    (answer,) = await _next([watch])
    clock.now += took
    clock.looking.release()
    return await answer


@pytest.mark.parametrize("took", [0.4, 8.0])
async def test_between_two_looks_is_nine_times_as_long_as_one_took(
    clock: Clock, watches: Watches[int], took: float
) -> None:
    watch = watches.looks("a")
    assert await _looked(clock, watch, took) == 1
    (answer,) = await _next([watch])
    clock.looking.release()
    clock.go_on()
    assert await answer == 2
    assert clock.looks == pytest.approx([STARTED, STARTED + 10 * took])


@pytest.mark.parametrize("alone", [True, False])
async def test_who_comes_in_a_long_rest_begins_with_the_last_look(
    clock: Clock, watches: Watches[int], alone: bool
) -> None:
    """Also where nobody watched any more: those who come and go take no more looks than those who stay."""
    first, second, third = (watches.looks("a") for _ in range(3))
    assert await _looked(clock, first, 8.0) == 1
    if alone:
        await first.aclose()
    clock.now += 60.0
    assert await anext(second) == 1
    clock.now += 10.0
    (answer,) = await _next([third])
    clock.looking.release()
    clock.go_on()
    assert await answer == 2
    assert clock.looks == pytest.approx([STARTED, STARTED + 80.0])


@pytest.mark.parametrize("leaving", [0, 1])
async def test_who_leaves_disturbs_no_other_that_waits_for_the_look(
    clock: Clock, watches: Watches[int], leaving: int
) -> None:
    """Whoever's turn it was: they have the answer of the look that has begun, and no other one is taken."""
    both = [watches.looks("a"), watches.looks("a")]
    clock.looking.release()
    assert await asyncio.gather(*await _next(both)) == [1, 1]
    waiting = await _next(both)
    clock.go_on()
    await _settled()
    assert len(clock.looks) == 2
    waiting[leaving].cancel()
    await _settled()
    clock.looking.release()
    await _settled()
    assert waiting[1 - leaving].done(), "it waits for another one"
    assert (waiting[1 - leaving].result(), len(clock.looks)) == (2, 2)


async def test_a_look_is_cut_off_when_nobody_is_left_who_waits_for_it(clock: Clock) -> None:
    cut_off = 0

    async def look(deployment_id: str) -> int:
        nonlocal cut_off
        try:
            return await _hang()
        finally:
            cut_off += 1

    watches = Watches(look, lambda: clock.now, clock.sleep)
    waiting = await _next([watches.looks("a") for _ in range(3)])
    for left in (2, 1, 0):
        assert cut_off == 0
        waiting[left].cancel()
        await asyncio.wait([waiting[left]])
    assert cut_off == 1
    clock.now += watching.INTERVAL_SECONDS
    watches._forget()
    assert not watches._watched


async def test_deployments_have_looks_of_their_own_and_are_forgotten(clock: Clock, watches: Watches[int]) -> None:
    clock.looking.release()
    clock.looking.release()
    both = [watches.looks("a"), watches.looks("b")]
    assert await anext(both[0]) == 1
    assert await anext(both[1]) == 2
    for watch in both:
        await watch.aclose()
    assert not watches._watched


@dataclass
class Failing:
    """Looks of which each does what comes next."""

    clock: Clock
    turns: list[Callable[[], Awaitable[int]]]
    began: list[float] = field(default_factory=list)

    async def look(self, deployment_id: str) -> int:
        self.began.append(self.clock.now)
        return await self.turns.pop(0)()


async def _fail() -> int:
    raise ValueError("it is away")


async def _hang() -> int:
    return await asyncio.Event().wait()


async def _answer() -> int:
    return 7


async def test_all_who_waited_for_a_look_that_fails_hear_of_it(clock: Clock) -> None:
    failing = Failing(clock, [_fail, _answer])
    watches = Watches(failing.look, lambda: clock.now, clock.sleep)
    for heard in await _next([watches.looks("a") for _ in range(5)]):
        with pytest.raises(ValueError, match="away"):
            await heard
    assert failing.began == [STARTED]


async def test_whoever_asks_again_after_a_look_that_failed_waits_for_its_rest(clock: Clock) -> None:
    """However soon, and however many: a database that is away is asked once in each interval."""
    failing = Failing(clock, [_fail, _fail, _answer])
    watches = Watches(failing.look, lambda: clock.now, clock.sleep)
    for _ in range(2):
        with pytest.raises(ValueError, match="away"):
            await anext(watches.looks("a"))
        clock.now += 0.01
        later = await _next([watches.looks("a") for _ in range(3)])
        assert not any(each.done() for each in later)
        for each in later:
            each.cancel()
        await asyncio.wait(later)
        clock.resting.clear()
        clock.now += watching.INTERVAL_SECONDS
    assert await anext(watches.looks("a")) == 7
    gaps = [after - before for before, after in zip(failing.began, failing.began[1:], strict=False)]
    assert min(gaps) >= watching.INTERVAL_SECONDS


async def test_in_the_rest_of_a_look_that_failed_its_failure_is_told_and_no_longer(clock: Clock) -> None:
    """Such as one that the database ended after half a minute: it may be well after another half."""

    async def late() -> int:
        clock.now += 30.0
        return await _fail()

    failing = Failing(clock, [late, _answer])
    watches = Watches(failing.look, lambda: clock.now, clock.sleep)
    for _ in range(3):
        with pytest.raises(ValueError, match="away"):
            await anext(watches.looks("a"))
    assert failing.began == [STARTED]
    clock.now += 30.0
    assert await anext(watches.looks("a")) == 7


@pytest.mark.parametrize(("took", "after"), [(0.001, watching.INTERVAL_SECONDS), (25.0, 50.0)])
async def test_a_look_that_is_cut_off_leaves_the_turn_to_the_next_after_its_rest(
    clock: Clock, took: float, after: float
) -> None:
    """A rest of nine times as long is for those who have an answer."""
    failing = Failing(clock, [_hang, _answer])
    watches = Watches(failing.look, lambda: clock.now, clock.sleep)
    (hanging,) = await _next([watches.looks("a")])
    clock.now += took
    (waiting,) = await _next([watches.looks("a")])
    hanging.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await hanging
    await _settled()
    assert not waiting.done()
    clock.go_on()
    assert await waiting == 7
    assert failing.began == [STARTED, STARTED + after]
