"""The barrier of a build: everything that its inputs had before it is done before the version may take over.

The first one is the staging itself. But a build takes hours, and meanwhile scopes are run again, and inputs without a
cursor go on, of which no watermark tells. So when it has caught up otherwise, and still has something in work, the try
to cut over takes another barrier, and halts releases of the jobs that are about to go: of what is accepted later these
do nothing either, for as long as the halt lasts. There is no such barrier without a halt: by itself it is taken when a
halt may begin again, as long after the last one as a halt lasts, and twice as long for each that came to nothing.

A barrier is taken under the DAG's locks, so that what is accepted is before it or after it. From then on what its jobs
emit by tasks from before counts as replayed, all the way down. So it stays as it is, however much comes later, and is
passed in the time that the jobs take; once passed it stays passed, because no task from before comes back. It is good
then for as long as releases have been halted since: what is active does nothing that came after it. Only one that
outlived the longest halt is good for as long as it took: a version whose tasks take minutes gets there too.

A version whose tasks take longer than those that it replaces is behind by so much at every moment. It gets level where
what is active stands still for as long. So the next halt is twice as long as the last barrier took, within bounds.
"""

import math
from dataclasses import dataclass
from datetime import datetime, timedelta

from dispatcher.audit import store as audit
from dispatcher.audit.entries import Action, Entry
from dispatcher.db.pool import Pool, transaction
from dispatcher.db.rows import Connection, rows
from dispatcher.db.statements import Statements
from dispatcher.deploy import halting, stages

_sql = Statements.load("dispatcher.deploy", "barrier.sql")

LEAST_HALT = timedelta(seconds=30)
"""A halt of releases, of a build whose tasks do not take longer."""
MOST_HALT = timedelta(seconds=120)
"""Longest halt of releases, of a build whose tasks take that long."""
MOST_PAUSED = timedelta(hours=1)
"""Longest pause between two halts that a build takes by itself."""
_AS_LONG = MOST_HALT - timedelta(seconds=1)
"""The longest halt begins a moment before its barrier, and ends as much earlier."""
_SOON = timedelta(seconds=30)
"""Whoever was refused asks again within this time, or waits for another barrier."""


@dataclass(frozen=True, slots=True)
class Barrier:
    """A build's, at the moment `now` of the database. `retaken`: it is not the staging's, which was passed before.
    `by_itself`: so many were taken that nobody asked for. `halted_since`, `halted_until`: when releases were halted
    last, or are."""

    barrier_at: datetime
    passed_at: datetime | None
    retaken: bool
    waits_for_person: bool
    by_itself: int
    halted_since: datetime | None
    halted_until: datetime | None
    now: datetime

    @property
    def passed(self) -> bool:
        """It is known that all from before is done."""
        return self.passed_at is not None

    @property
    def took(self) -> timedelta:
        """To be passed; so far, where it was not."""
        return (self.passed_at or self.now) - self.barrier_at

    @property
    def good(self) -> bool:
        """It was retaken, and was not passed yet, or what is active has done nothing from after it since. Of one that
        outlived the longest halt nobody can wait for that."""
        return self.retaken and (self.passed_at is None or self._halted or self._outlived)

    @property
    def _halted(self) -> bool:
        """Releases, without a moment in between."""
        if self.halted_since is None or self.halted_until is None:
            return False
        return self.halted_since <= self.barrier_at and self.now < self.halted_until

    @property
    def _outlived(self) -> bool:
        """The longest halt; or one for which somebody asked again as soon as that had ended. Not a short one, long
        after which another one began."""
        if self.passed_at is None or self.halted_since is None or self.halted_until is None:
            return False
        longest_at = self.barrier_at + _AS_LONG
        at_once = self.halted_since < longest_at + _SOON
        return at_once and longest_at < min(self.passed_at, self.halted_until) and self.now < self.passed_at + self.took

    def may_be_retaken(self, length: timedelta, *, asked: bool) -> bool:
        """Where it is passed. For a person only where it is good no more: of two that try at once the second finds the
        first one's. Where nobody asked, when releases may be halted for that long again, and only of what does not wait
        for a person."""
        if not self.passed:
            return False
        if asked:
            return not self.good
        return not self.waits_for_person and (
            self.halted_until is None or self.halted_until < self.now - self.pause(length)
        )

    def pause(self, length: timedelta) -> timedelta:
        """Before the next halt by itself: as long as that is to last, and twice as long for each that came to nothing
        after the first, MOST_PAUSED at most. What cannot get there does not halve what is active for ever."""
        longest = length
        for _ in range(min(self.by_itself - 1, 10)):
            longest *= 2
        return max(length, min(MOST_PAUSED, longest))

    @property
    def again_at(self) -> datetime | None:
        """When releases may be halted again by itself; None where that did not come to nothing yet."""
        if not self.by_itself or self.waits_for_person or self.halted_until is None or self.now < self.halted_until:
            return None
        return self.halted_until + self.pause(self.halt_length(LEAST_HALT))

    def halt_length(self, least: timedelta) -> timedelta:
        """How long releases are to be halted for it: twice as long as the last one took, within bounds. The staging's
        took as long as the build, which says nothing."""
        return max(least, min(MOST_HALT, 2 * self.took)) if self.retaken else least


@dataclass(frozen=True, slots=True)
class Taker:
    """Who takes a barrier of a build: a person's call, by its id, or the build by itself, for whoever deployed it."""

    dag: str
    dag_version_id: str
    actor: str
    call: str | None = None

    @property
    def halter(self) -> str:
        """Of releases."""
        return self.call or self.dag_version_id


async def get(connection: Connection, dag_version_id: str) -> Barrier | None:
    """None where the version is not being built."""
    found = await rows(connection, _sql.get_barrier, Barrier, dag_version_id=dag_version_id)
    return found[0] if found else None


async def note_passed(pool: Pool, dag_version_id: str) -> None:
    """Where it is: looks at all that the jobs have to do, and so under no lock."""
    async with transaction(pool) as connection:
        barrier = await get(connection, dag_version_id)
        if barrier is None or barrier.passed:
            return
        cursor = await connection.execute(_sql.before_barrier, {"dag_version_id": dag_version_id})
        if not (row := await cursor.fetchone()) or row[0]:
            return
        values = {"dag_version_id": dag_version_id, "barrier_at": barrier.barrier_at}
        await connection.execute(_sql.note_passed, values)


async def halt_for(connection: Connection, dag_version_id: str, least: timedelta) -> timedelta:
    """How long releases are to be halted for it: `least`, or so much longer as its tasks take, at most MOST_HALT."""
    barrier = await get(connection, dag_version_id)
    return least if barrier is None else barrier.halt_length(least)


async def take(pool: Pool, taker: Taker, length: timedelta) -> bool:
    """Another barrier, with a halt of releases for so long at least; neither where a halt ended not long ago, or where
    the version waits for a person by now: False. Raises UNAVAILABLE, and TOO_MANY_ROWS where it cannot take over."""
    async with transaction(pool) as connection:
        length = await halt_for(connection, taker.dag_version_id, length)
        return await _retake(connection, taker, length)


async def take_for(pool: Pool, taker: Taker, length: timedelta) -> None:
    """For a person's call: another barrier where the last one is not good any more, and a halt of releases at any
    rate. So it waits for the same barrier as another call. Raises as `take`."""
    async with transaction(pool) as connection:
        if not await _retake(connection, taker, length):
            await _halt(connection, taker, length)


async def _retake(connection: Connection, taker: Taker, length: timedelta) -> bool:
    if not await _may_retake(connection, taker, length):  # then acceptance need not wait for it
        return False
    await stages.require_takeover(connection, taker.dag, taker.dag_version_id)  # else they would be halted for nothing
    standing = await stages.own(connection, taker.dag)
    if standing.staged_version_id != taker.dag_version_id:
        return False
    if not await _may_retake(connection, taker, length):
        return False
    await _halt(connection, taker, length)  # first: what comes after the barrier is not released
    retaken = {"dag_version_id": taker.dag_version_id, "asked": taker.call is not None}
    await connection.execute(_sql.retake_barrier, retaken)
    await connection.execute(_sql.bar_jobs, {"dag_version_id": taker.dag_version_id})
    return True


async def _may_retake(connection: Connection, taker: Taker, length: timedelta) -> bool:
    """Decides only under the DAG's locks."""
    barrier = await get(connection, taker.dag_version_id)
    return barrier is not None and barrier.may_be_retaken(length, asked=taker.call is not None)


async def _halt(connection: Connection, taker: Taker, length: timedelta) -> None:
    """What is active stands still by it, so it is on record; of what is not being built any more nothing is."""
    if not await halting.halt(connection, taker.dag_version_id, taker.halter, length):
        return
    details = {"most_seconds": math.ceil(length.total_seconds()), "by_itself": taker.call is None}
    entry = Entry(Action.HALT, taker.actor, taker.dag, [taker.dag], details, to_version_id=taker.dag_version_id)
    await audit.record(connection, entry)
