"""Finished tasks leave the hot tables, and old ones leave altogether.

Whatever keeps the delivery going reads and writes `task` and `attempt`; their size, and that of their indexes, is to
depend on the work at hand and not on all that was ever done. So a task that has ended moves, with its attempts, into
tables that are partitioned by the day of its end, and a day that is no longer kept is dropped as a whole.

* **Only what is final moves.** A DEAD task is not: it holds its stream and its job's watermark until somebody retries
  or skips it, and so it stays where these look for it.
* **A source's run may never end.** Its attempts go by themselves, when they are as old as a task that is dropped.
* **Nobody misses it.** What decides over events reads no finished task: which of them a job was given is said by its
  subscriptions, how far a stream is by its row, what is complete by watermarks and open tasks. A call that names a
  finished task late finds it by a second look (`store`), people find it through the views `any_task`, `any_attempt`.
* **A move is one transaction**, at most 5,000 rows, over rows that it has locked and that nobody else had locked. It
  may be undone by a crash of the server, and is then simply done again.
"""

import asyncio
import time
from dataclasses import dataclass
from datetime import datetime, timedelta

import psycopg
import structlog

from dispatcher.db.pool import Pool, transaction, unflushed_transaction
from dispatcher.db.rows import Connection
from dispatcher.tasks import finished
from kernel.crash import crash

_log = structlog.get_logger(__name__)

TASKS = 800
"""That one transaction moves at most: two rows each, one deleted and one written."""
ATTEMPTS = 1_600
"""The same of their attempts; a task that has more follows them in a later transaction."""
_TEND_SECONDS = 60.0
_LONGEST_REST_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Keeping:
    """`live`: how long a finished task stays in the hot tables. `days`: for how long it is kept at all, 0 for ever."""

    live: timedelta
    days: int
    drop_wait: timedelta = timedelta(milliseconds=200)
    """For a lock on history; readers of history that come meanwhile wait behind it."""


@dataclass(frozen=True, slots=True)
class Moved:
    """What one transaction moved. `first`: when the first task that it took had ended."""

    tasks: int
    attempts: int
    first: datetime | None


async def move_finished(connection: Connection, live: timedelta, after: datetime | None = None) -> Moved:
    """One batch of those that ended at least `live` ago, and not before `after`."""
    picked = await finished.pick_finished(connection, live, after, TASKS)
    if not picked:
        return Moved(0, 0, None)
    await finished.add_day(connection, picked[0].day)
    attempts = await finished.move_attempts(connection, picked, ATTEMPTS)
    crash("keep.attempts")
    tasks = await finished.move_tasks(connection, picked)
    crash("keep.written")
    return Moved(tasks, attempts, picked[0].finished_at)


class Keeper:
    """The duty. Remembers only where the last batch began: entries of the index before it are of what was moved."""

    def __init__(self, pool: Pool, keeping: Keeping) -> None:
        self._pool = pool
        self._keeping = keeping
        self._after: datetime | None = None
        self._tend_at = 0.0

    async def run_once(self) -> int:
        """Answers how many rows it moved; 0 where there is nothing, or where another replica is at it."""
        began = time.monotonic()
        if began >= self._tend_at:
            await self.tend_days()
            await self.trim_attempts()
            self._tend_at = began + _TEND_SECONDS
        async with unflushed_transaction(self._pool) as connection:
            if not await finished.keep_alone(connection):
                return 0
            moved = await move_finished(connection, self._keeping.live, self._after)
        self._after = moved.first
        if moved.first is None:
            return 0
        await _rest(began)
        return moved.tasks + moved.attempts

    async def tend_days(self) -> None:
        """Makes the partitions of the next day, and drops those of days that are no longer kept."""
        async with transaction(self._pool) as connection:
            if await finished.keep_alone(connection):
                await finished.add_days_ahead(connection)
        while self._keeping.days and await self._drop_day():
            pass

    async def trim_attempts(self) -> None:
        """Of runs that go on, those that are no longer kept."""
        while self._keeping.days:
            began = time.monotonic()
            async with unflushed_transaction(self._pool) as connection:
                if not await finished.keep_alone(connection):
                    return
                trimmed = await finished.trim_attempts(connection, self._keeping.days, ATTEMPTS)
            if trimmed < ATTEMPTS:
                return
            await _rest(began)

    async def _drop_day(self) -> bool:
        """Whether one was dropped. A lock that is not had at once is left for the next time."""
        try:
            async with transaction(self._pool) as connection:
                day = await finished.oldest_day_to_drop(connection, self._keeping.days)
                if day is None or not await finished.keep_alone(connection):
                    return False
                await finished.limit_lock_wait(connection, self._keeping.drop_wait)
                await finished.drop_day(connection, day)
        except psycopg.errors.LockNotAvailable:
            _log.info("finished tasks are being read, their day is dropped later")
            return False
        _log.info("finished tasks dropped", day=day.isoformat())
        return True


async def _rest(began: float) -> None:
    """It gives way: the other half of the time is that of what people wait for."""
    await asyncio.sleep(min(time.monotonic() - began, _LONGEST_REST_SECONDS))
