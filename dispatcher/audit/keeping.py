"""How long queries stay on record: days that are no longer kept are dropped as a whole."""

from dataclasses import dataclass
from datetime import timedelta

import psycopg
import structlog

from dispatcher.audit import query_records
from dispatcher.db.pool import Pool, transaction

_log = structlog.get_logger(__name__)
TEND_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class QueryRecordKeeper:
    """The duty. `days`: for how long a record is kept, 0 for ever."""

    pool: Pool
    days: int
    drop_wait: timedelta = timedelta(milliseconds=200)
    """For a lock on the record; who reads or records meanwhile waits behind it."""

    async def run_once(self) -> int:
        """Makes the partitions of today and tomorrow, so that midnight makes no table; drops what is too old."""
        async with transaction(self.pool) as connection:
            if await query_records.try_alone(connection):
                await query_records.add_days(connection, ahead=1)
        while self.days and await self._drop_day():
            pass
        return 0

    async def _drop_day(self) -> bool:
        """Whether one was dropped. A lock that is not had at once is left for the next time."""
        try:
            async with transaction(self.pool) as connection:
                day = await query_records.oldest_day_to_drop(connection, self.days)
                if day is None or not await query_records.try_alone(connection):
                    return False
                await query_records.limit_lock_wait(connection, self.drop_wait)
                await query_records.drop_day(connection, day)
        except psycopg.errors.LockNotAvailable:
            _log.info("records of queries are being read, their day is dropped later")
            return False
        _log.info("records of queries dropped", day=day.isoformat())
        return True
