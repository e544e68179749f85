"""The barrier of a build: everything that its inputs had before it is done before the version may take over.

The first one is the staging itself. But a build takes hours, and meanwhile scopes are run again, and inputs without a
cursor go on, of which no watermark tells. So when it has caught up otherwise, and still has something in work, the try
to cut over takes another barrier, and holds releases of the jobs that are about to go: of what is accepted later these
do nothing either, for as long as the hold lasts. There is no such barrier without a hold: by itself it is taken when a
hold may begin again, as long after the last one as a hold lasts.

A barrier is taken under the DAG's locks, so that what is accepted is before it or after it. From then on what its jobs
emit by tasks from before counts as replayed, all the way down. So it stays as it is, however much comes later, and is
passed in the time that the jobs take; once passed it stays passed, because no task from before comes back. It is good
then for as long as releases have been held since: what is active does nothing that came after it. One that takes
longer than a hold lasts is good for as long as it took: a version whose tasks take minutes gets there too.

A version whose tasks take longer than those that it replaces is behind by so much at every moment. It gets level where
what is active stands still for as long. So the next hold is twice as long as the last barrier took, within bounds.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from dispatcher.db.pool import Pool, transaction
from dispatcher.db.rows import Connection, one_row, rows
from dispatcher.db.statements import Statements
from dispatcher.deploy import holding, stages

_sql = Statements.load("dispatcher.deploy", "barrier.sql")

LONG = timedelta(seconds=30)
"""A barrier that takes longer may be passed after its hold."""
MOST_HELD = timedelta(seconds=120)
"""Longest hold of releases, of a build whose tasks take that long."""


@dataclass(frozen=True, slots=True)
class Barrier:
    """`passed`: it is known that all from before is done. `retaken`: it is not the staging's, which was passed before.
    `good`: it was retaken, and was not passed yet, or what is active has done nothing from after it since."""

    barrier_at: datetime
    passed: bool
    retaken: bool
    good: bool


async def get(connection: Connection, dag_version_id: str) -> Barrier | None:
    """None where the version is not staged."""
    found = await rows(connection, _sql.get_barrier, Barrier, dag_version_id=dag_version_id, least=LONG)
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


async def held_for(connection: Connection, dag_version_id: str, least: timedelta) -> timedelta:
    """How long releases are to be held for it: `least`, or for so much longer as its tasks take, at most MOST_HELD."""
    values = {"dag_version_id": dag_version_id, "least": least, "most": MOST_HELD}
    held: timedelta = (await one_row(connection, _sql.held_for, values))[0]
    return held


async def take(pool: Pool, dag: str, dag_version_id: str, held: timedelta) -> bool:
    """Another barrier, with a hold of releases for so long at least; neither where a hold ended not long ago, or where
    the version waits for a person by now: False. Raises UNAVAILABLE."""
    async with transaction(pool) as connection:
        held = await held_for(connection, dag_version_id, held)
        return await _retake(connection, dag, dag_version_id, dag_version_id, held, asked=False)


async def take_for(pool: Pool, dag: str, dag_version_id: str, call: str, held: timedelta) -> None:
    """For a person's call, by its id: another barrier where the last one is not good any more, and a hold of releases
    at any rate. So it waits for the same barrier as another call. Raises UNAVAILABLE."""
    async with transaction(pool) as connection:
        if not await _retake(connection, dag, dag_version_id, call, held, asked=True):
            await holding.hold(connection, dag_version_id, call, held)


async def _retake(
    connection: Connection, dag: str, dag_version_id: str, holder: str, held: timedelta, *, asked: bool
) -> bool:
    values = {"dag_version_id": dag_version_id, "least": LONG, "held": held, "asked": asked}
    if not await _may_retake(connection, values):  # then acceptance need not wait for it
        return False
    standing = await stages.own(connection, dag)
    if standing.staged_version_id != dag_version_id or not await _may_retake(connection, values):
        return False
    await holding.hold(connection, dag_version_id, holder, held)  # first: what comes after the barrier is held
    await connection.execute(_sql.retake_barrier, values)
    await connection.execute(_sql.bar_jobs, values)
    return True


async def _may_retake(connection: Connection, values: Mapping[str, object]) -> bool:
    cursor = await connection.execute(_sql.may_retake, values)
    return await cursor.fetchone() == (True,)
