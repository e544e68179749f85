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
from dispatcher.db.pool import Pool, transaction
from dispatcher.db.rows import Connection
from dispatcher.events.replay import replay_page
from dispatcher.events.watermarks import derive_watermarks
from dispatcher.tasks import store as tasks_store
from dispatcher.tasks.ending import expire_leases
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
    wait: Callable[[], Awaitable[None]]


class Nudge:
    """Wakes a waiting duty early. Nudges while it works are one more round."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def __call__(self) -> None:
        self._event.set()

    async def wait(self, idle: float) -> None:
        try:
            async with asyncio.timeout(idle):
                await self._event.wait()
        except TimeoutError:
            return
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
        if done == 0:
            await duty.wait()


async def _pause() -> None:
    await asyncio.sleep(FULL_RETRY * (0.5 + random.random()))


@dataclass(frozen=True, slots=True)
class Idle:
    """Seconds between rounds in which nothing was found."""

    release: float = 1.0
    leases: float = 0.5
    backoffs: float = 0.2
    watermarks: float = 0.5
    replay: float = 1.0
    pins: float = 30.0


def build_duties(pool: Pool, releaser: Releaser, progressed: Nudge, idle: Idle, dispatcher_id: str) -> list[Duty]:
    """`progressed` is nudged when tasks ended or watermarks moved; `dispatcher_id` is this process' own, a uuid."""

    def in_transaction(work: Callable[[Connection], Awaitable[int]]) -> Callable[[], Awaitable[int]]:
        async def run_once() -> int:
            async with transaction(pool) as connection:
                done = await work(connection)
            if done:
                releaser.signal()
                progressed()
            return done

        return run_once

    def every(seconds: float) -> Callable[[], Awaitable[None]]:
        # Jitter keeps replicas from asking at the same moments.
        return lambda: asyncio.sleep(seconds * (0.8 + 0.4 * random.random()))

    async def release() -> int:
        await releaser.run_once()
        return 0  # it signals itself where there is more

    async def report() -> int:
        async with transaction(pool) as connection:
            await report_queues(connection, dispatcher_id, releaser.watched())
        return 0

    return [
        Duty("release", release, lambda: releaser.wait(idle.release)),
        Duty("expire-leases", in_transaction(lambda c: expire_leases(c, BATCH)), every(idle.leases)),
        Duty("end-backoffs", in_transaction(lambda c: tasks_store.end_backoffs(c, BATCH)), every(idle.backoffs)),
        Duty("derive-watermarks", in_transaction(derive_watermarks), lambda: progressed.wait(idle.watermarks)),
        Duty("replay", in_transaction(replay_page), every(idle.replay)),
        Duty("release-pins", in_transaction(lambda c: datasets_store.release_expired_pins(c, BATCH)), every(idle.pins)),
        Duty("report-queues", report, every(REPORT_SECONDS)),
    ]


UNANSWERED_WAKEUP = timedelta(seconds=10)
"""After this time without a claim a wake-up is sent again."""
