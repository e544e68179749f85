"""Background duties: one protocol to start and stop them, one list of what they are.

Each duty is a small function that does a bounded piece of work and says whether there may be more. All of them claim
rows, so any number of dispatchers may run them at once. A duty that fails is logged and tried again: none of them may
take the dispatcher down.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta

import psycopg
import structlog
from psycopg_pool import PoolTimeout

from dispatcher.datasets import store as datasets_store
from dispatcher.db.errors import DatabaseError
from dispatcher.db.pool import Pool, single_statements, transaction
from dispatcher.db.rows import Connection
from dispatcher.deploy.advancing import advance
from dispatcher.events.replay import Replayer
from dispatcher.events.watermarks import derive_watermarks
from dispatcher.tasks import store as tasks_store
from dispatcher.tasks.ending import expire_leases
from dispatcher.tasks.keeping import Keeper, Keeping
from dispatcher.wakeups.lookout import find_due
from dispatcher.wakeups.queues import REPORT_SECONDS, report_queues
from dispatcher.wakeups.release import Releaser

_log = structlog.get_logger(__name__)

BATCH = 1_000
"""Rows that one round of a duty takes at most."""
FULL_RETRY = 1.0
"""Seconds to wait after a failed round."""


@dataclass(frozen=True, slots=True)
class Duty:
    """`run_once` answers how much it did; `wait` returns when the next round is due, sooner where it can be told."""

    name: str
    run_once: Callable[[], Awaitable[int]]
    wait: Callable[[], Awaitable[object]]


class Nudge:
    """Wakes a waiting duty early. Nudges while it works are one more round."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def __call__(self) -> None:
        self._event.set()

    async def wait(self, idle: float | None = None) -> bool:
        """Returns when nudged, and after `idle` seconds at the latest; whether it was nudged."""
        try:
            async with asyncio.timeout(idle):
                return await self._event.wait()
        except TimeoutError:
            return False
        finally:
            self._event.clear()


async def run_duties(duties: Sequence[Duty]) -> None:
    """Runs all until cancelled."""
    async with asyncio.TaskGroup() as group:
        for duty in duties:
            group.create_task(_run(duty), name=duty.name)


async def _run(duty: Duty) -> None:
    while True:
        try:
            done = await duty.run_once()
        except (psycopg.Error, DatabaseError, PoolTimeout) as error:
            _log.warning("duty failed, it will be tried again", duty=duty.name, error=str(error))
            await _pause()
            continue
        except Exception:  # noqa: BLE001 - a defect met by one duty must end neither the others nor the dispatcher
            _log.exception("duty met a defect, it will be tried again", duty=duty.name)
            await _pause()
            continue
        _heed_cancellation()
        if done == 0:
            await duty.wait()


def _heed_cancellation() -> None:
    """A round may lose it: `asyncio.wait_for` does before Python 3.12, by which the pool waits, where a connection
    comes free at the very moment. A dispatcher that drains would wait for the duty without end."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


async def _pause() -> None:
    _heed_cancellation()
    await asyncio.sleep(FULL_RETRY * (0.5 + random.random()))


@dataclass(frozen=True, slots=True)
class Idle:
    """Seconds between rounds in which nothing was found."""

    look: float = 1.0
    watermarks: float = 2.0
    pins: float = 30.0
    keeping: float = 10.0
    removing: float = 5.0
    sweeping: float = 600.0


@dataclass(frozen=True, slots=True)
class Rest:
    """Seconds between a nudge and its round, of what every commit nudges: it gives way to what the commit is waited for
    by, and is done once for many."""

    look: float = 0.2
    watermarks: float = 0.02


@dataclass(frozen=True, slots=True)
class Duties:
    """All of them. `progressed` is to be called when tasks ended or watermarks moved."""

    all: list[Duty]
    progressed: Callable[[], None]


class Lookout:
    """Asks for all duties in one statement, and nudges those that have something to do."""

    def __init__(self, pool: Pool, releaser: Releaser, unanswered: timedelta, idle: float, rest: float) -> None:
        self._pool = pool
        self._releaser = releaser
        self._unanswered = unanswered
        self._idle = idle
        self._rest = rest
        self._next = 0.0
        self.hurry, self.leases, self.backoffs, self.replay, self.staged = Nudge(), Nudge(), Nudge(), Nudge(), Nudge()

    async def run_once(self) -> int:
        async with single_statements(self._pool) as connection:
            due = await find_due(connection, self._unanswered)
        calls = (
            (due.leases, self.leases),
            (due.backoffs, self.backoffs),
            (due.wakeups, self._releaser.signal_unanswered),
            (0.0 if due.replay else None, self.replay),
            (0.0 if due.staged else None, self.staged),
            # What this dispatcher's commits made ready is known: here is what others' did.
            (0.0 if due.queued else None, self._releaser.signal),
        )
        for seconds, call in calls:
            if seconds is not None and seconds <= 0:
                call()
        self._next = min([self._idle, *(seconds for seconds, _ in calls if seconds is not None and seconds > 0)])
        return 0

    async def wait(self) -> None:
        """Until something is due as far as is known, or until something has changed, which is not known yet."""
        if await self.hurry.wait(_jittered(self._next)):
            await asyncio.sleep(self._rest)


@dataclass(frozen=True, slots=True)
class _Rounds:
    """What duties do in a round, and whom they tell when something came of it."""

    pool: Pool
    releaser: Releaser
    dispatcher_id: str
    progressed: Callable[[], None]

    def in_transaction(self, work: Callable[[Connection], Awaitable[int]]) -> Callable[[], Awaitable[int]]:
        async def run_once() -> int:
            async with transaction(self.pool) as connection:
                done = await work(connection)
            if done:
                self.switched()
            return done

        return run_once

    def switched(self) -> None:
        """Other tasks may run than before."""
        self.releaser.signal()
        self.progressed()

    async def release(self) -> int:
        await self.releaser.run_once()
        return 0  # it signals itself where there is more

    async def cut_over(self) -> int:
        return await advance(self.pool, self.switched)

    async def report(self) -> int:
        async with single_statements(self.pool) as connection:
            await report_queues(connection, self.dispatcher_id, self.releaser.watched())
        return 0

    async def derive(self) -> int:
        async with single_statements(self.pool) as connection:
            moved = await derive_watermarks(connection)
        if moved:  # what follows from these it finds itself, in the next round
            self.releaser.signal()
        return moved


def build_duties(pool: Pool, releaser: Releaser, unanswered: timedelta, dispatcher_id: str, keeping: Keeping) -> Duties:
    """`unanswered` is how long a wake-up may be without a claim; `dispatcher_id` is this process' own, a uuid."""
    idle, rest = Idle(), Rest()
    lookout = Lookout(pool, releaser, unanswered, idle.look, rest.look)
    watermarks = Nudge()

    def progressed() -> None:
        watermarks()
        lookout.hurry()

    async def rested() -> None:
        if await watermarks.wait(_jittered(idle.watermarks)):
            await asyncio.sleep(rest.watermarks)

    rounds = _Rounds(pool, releaser, dispatcher_id, progressed)
    in_transaction = rounds.in_transaction
    # More often where finished tasks are to leave sooner.
    keep_seconds = min(idle.keeping, keeping.live.total_seconds() + 1)
    return Duties(
        [
            Duty("look", lookout.run_once, lookout.wait),
            Duty("release", rounds.release, releaser.wait),
            Duty("expire-leases", in_transaction(lambda c: expire_leases(c, BATCH)), lookout.leases.wait),
            Duty("end-backoffs", in_transaction(lambda c: tasks_store.end_backoffs(c, BATCH)), lookout.backoffs.wait),
            Duty("derive-watermarks", rounds.derive, rested),
            Duty("replay", in_transaction(Replayer().page), lookout.replay.wait),
            Duty("cut-over", rounds.cut_over, lookout.staged.wait),
            Duty(
                "release-pins",
                in_transaction(lambda c: datasets_store.release_expired_pins(c, BATCH)),
                every(idle.pins),
            ),
            Duty("report-queues", rounds.report, every(REPORT_SECONDS)),
            Duty("keep-finished", Keeper(pool, keeping).run_once, every(keep_seconds)),
        ],
        progressed,
    )


def every(seconds: float) -> Callable[[], Awaitable[None]]:
    """A duty's wait of about so long."""
    return lambda: asyncio.sleep(_jittered(seconds))


def _jittered(seconds: float) -> float:
    """Keeps replicas from asking at the same moments."""
    return seconds * (0.8 + 0.4 * random.random())
