"""The barrier of a build: everything that its inputs had before it is done before the version may take over.

The first one is the staging itself. But a build takes hours, and meanwhile scopes are run again, and inputs without a
cursor go on, of which no watermark tells. So when it has caught up otherwise, and still has something in work, the try
to cut over takes another barrier, and holds releases of the jobs that are about to go: of what is accepted later these
do nothing either, for as long as the hold lasts. There is no such barrier without a hold: by itself it is taken when a
hold may begin again, as long after the last one as a hold lasts.

A barrier is taken under the DAG's locks, so that what is accepted is before it or after it. From then on what its jobs
emit by tasks from before counts as replayed, all the way down. So it stays as it is, however much comes later, and is
passed in the time that the jobs take; once passed it stays passed, because no task from before comes back. It is good
for a while then, and for as long as it took: a version whose tasks take minutes gets there too.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from dispatcher.db.pool import Pool, transaction
from dispatcher.db.rows import Connection, rows
from dispatcher.db.statements import Statements
from dispatcher.deploy import holding, stages

_sql = Statements.load("dispatcher.deploy", "barrier.sql")

GOOD_FOR = timedelta(seconds=30)
"""How long a barrier that was passed counts at least."""


@dataclass(frozen=True, slots=True)
class Barrier:
    """`passed`: it is known that all from before is done. `retaken`: it is not the staging's, which was passed before.
    `good`: it was retaken, and not passed too long ago."""

    barrier_at: datetime
    passed: bool
    retaken: bool
    good: bool


async def get(connection: Connection, dag_version_id: str) -> Barrier | None:
    """None where the version is not staged."""
    found = await rows(connection, _sql.get_barrier, Barrier, dag_version_id=dag_version_id, good_for=GOOD_FOR)
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


async def take(pool: Pool, dag: str, dag_version_id: str, held: timedelta, *, call: str | None = None) -> bool:
    """Another barrier, where the last one is not good any more, and a hold of releases with it. For a person's `call`,
    by its id, the hold at any rate: beside another call it waits for the same barrier. Else there is neither where a
    hold ended not long ago, nor where the version waits for a person by now: False. Raises UNAVAILABLE."""
    asked = call is not None
    values = {"dag_version_id": dag_version_id, "good_for": GOOD_FOR, "longest": held, "asked": asked}
    async with transaction(pool) as connection:
        taken = await _may_retake(connection, values)
        if taken:  # else acceptance need not wait for it
            standing = await stages.own(connection, dag)
            taken = standing.staged_version_id == dag_version_id and await _may_retake(connection, values)
        if taken:
            await connection.execute(_sql.retake_barrier, values)
            await connection.execute(_sql.bar_jobs, values)
        if taken or asked:
            await holding.hold(connection, dag_version_id, call or dag_version_id, held)
    return taken or asked


async def _may_retake(connection: Connection, values: Mapping[str, object]) -> bool:
    cursor = await connection.execute(_sql.may_retake, values)
    return await cursor.fetchone() == (True,)
