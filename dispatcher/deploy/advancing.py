"""Builds go on by themselves: a duty takes each one a step further that can be, up to its cutover. And it ends what
somebody began to remove.

Any number of dispatchers may do so at once: what a step is taken on is judged again under the locks. A cutover that was
tried and did not come about is on record, like one that a person was refused.
"""

from collections.abc import Callable

import psycopg
import structlog

from dispatcher.audit import store as audit
from dispatcher.audit.entries import Action, Refusal
from dispatcher.db.errors import DatabaseError
from dispatcher.db.pool import Pool, transaction
from dispatcher.deploy import barrier, cutover, halting, removing, stages
from dispatcher.deploy.stages import StagedDagRow
from kernel.errors import TraceError
from traceapi.types.v1.errors_pb2 import ErrorReason

_log = structlog.get_logger(__name__)


async def advance(pool: Pool, progressed: Callable[[], None]) -> int:
    """Takes every build a step further that can be, and ends what was begun to be removed. Answers 0: what is left to
    wait for is found by looking again."""
    async with transaction(pool) as connection:
        staged = await stages.staged_dags(connection)
        ending = await removing.ending_dags(connection)
    moved = 0
    for dag in ending:
        try:
            await removing.finish(pool, dag)
        except (TraceError, psycopg.Error, DatabaseError) as error:
            _log.warning("a removal could not be ended, it will be tried again", dag=dag, error=str(error))
    for build in staged:
        try:
            moved += await _advance(pool, build)
        except (TraceError, psycopg.Error, DatabaseError) as error:  # of one build, and no other one's business
            _log.warning("a build could not be taken further, it will be tried again", dag=build.dag, error=str(error))
    if moved:
        progressed()
    return 0


async def _advance(pool: Pool, build: StagedDagRow) -> bool:
    """Whether something came of it."""
    await barrier.note_passed(pool, build.dag_version_id)
    async with transaction(pool) as connection:
        lacking = await cutover.find_lack(connection, build.dag_version_id)
        if build.state == "building" and (lacking.built if build.hold else lacking.needs_person):
            return await stages.note_held(connection, build.dag_version_id)
    if build.hold:
        return False
    if lacking.dead:  # somebody has to do something first
        async with transaction(pool) as connection:
            await halting.end_halt(connection, build.dag_version_id, build.dag_version_id)
    if lacking.only_last or lacking.chases:
        return await _take_barrier(pool, build)
    return lacking.nothing and await _cut_over_by_itself(pool, build)


async def _take_barrier(pool: Pool, build: StagedDagRow) -> bool:
    """Not where it could not take over when that is passed: then it is on record."""
    try:
        taker = barrier.Taker(build.dag, build.dag_version_id, build.actor)
        return await barrier.take(pool, taker, cutover.HALT)
    except TraceError as error:
        if error.reason == ErrorReason.ERROR_REASON_TOO_MANY_ROWS:
            await _record(pool, build, error.reason_name, error.message)
        raise


async def _cut_over_by_itself(pool: Pool, build: StagedDagRow) -> bool:
    """False where another one, an event that was accepted meanwhile, or a hold came first."""
    try:
        active = await cutover.cut_over(pool, build.dag_version_id, cutover.DISPATCHER)
        if active is None:
            refusal = await cutover.not_caught_up(pool, build.dag_version_id)
            await _record(pool, build, refusal.reason_name, refusal.message)
    except cutover.Held:
        return False
    except TraceError as error:
        if error.reason == ErrorReason.ERROR_REASON_DEPLOYMENT_FINAL:  # what came first has an entry of its own
            return False
        await _record(pool, build, error.reason_name, error.message)
        raise
    except (psycopg.Error, DatabaseError) as error:  # such as locks that somebody holds for longer than anyone waits
        await _record(pool, build, "UNAVAILABLE", str(error).partition("\n")[0])
        raise
    return active is not None


async def _record(pool: Pool, build: StagedDagRow, reason: str, message: str) -> None:
    """As the cutover itself would be: for whoever deployed it."""
    refusal = Refusal(
        Action.CUT_OVER, build.actor, reason, message, dag=build.dag, to_version_id=build.dag_version_id, by_itself=True
    )
    await audit.record_refusal(pool, refusal)
