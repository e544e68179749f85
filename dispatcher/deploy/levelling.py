"""A cutover that a person asks for: the version that was built gets a bounded time to be level with what is active.

Under steady traffic what is active is ahead by some scopes at every look. So while only these are missing, a barrier is
taken and releases of the jobs that are about to go are halted, as an automatic cutover does; acceptance of events is
never halted. No transaction is open meanwhile, and who waits no more leaves a halt that ends by itself. Several who
wait at once, at whichever dispatcher, wait for the same barrier; each halts releases for itself, and what one of them
does all have asked for.

Each look is without locks, and a try to cut over, for which acceptance waits, follows only on one that found nothing
missing. Between two looks is a rest, whatever came of them.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta

import psycopg
import structlog
from psycopg_pool import PoolTimeout

from dispatcher.audit import store as audit
from dispatcher.audit.entries import Action, Entry, Refusal
from dispatcher.db.errors import DatabaseError
from dispatcher.db.pool import Pool, transaction
from dispatcher.db.rows import Connection
from dispatcher.deploy import barrier, cutover, halting
from dispatcher.deploy.readiness import Lack, Waiver
from dispatcher.deploy.store import VersionRow
from kernel.errors import TraceError
from traceapi.types.v1.errors_pb2 import ErrorReason

_log = structlog.get_logger(__name__)

_AWAY = (psycopg.Error, DatabaseError, PoolTimeout)
LOOK_SECONDS = 0.1
IDLE_SECONDS = 5.0
"""A version that has nothing to do and is behind all the same will not get there: its watermarks would have moved."""


async def cut_over_level(pool: Pool, dag_version_id: str, actor: str, call: str, waiver: Waiver) -> VersionRow:
    """`call` is an id that no other call has. Where the version is active, because the call is repeated, or takes over
    meanwhile, by itself or because another one asked for it, that is the answer. Raises as `cutover.cut_over`;
    NOT_CAUGHT_UP where it did not get there within `cutover.HALT`, or longer where its tasks take longer
    (`barrier.halt_for`)."""
    wait = None
    try:
        async with transaction(pool) as connection:
            dag = (await cutover.require_possible(connection, dag_version_id)).dag
        wait = _Wait(pool, barrier.Taker(dag, dag_version_id, actor, call))
        return await _wait_for(wait, waiver)
    except TraceError as error:
        if error.reason == ErrorReason.ERROR_REASON_DEPLOYMENT_FINAL:
            async with transaction(pool) as connection:
                version = await cutover.deployed(connection, dag_version_id)
                if version.state == "active":
                    if wait is not None:  # else the call is repeated
                        await _record_joined(connection, version, actor)
                    return version
        raise


async def _record_joined(connection: Connection, version: VersionRow, actor: str) -> None:
    """Somebody asked for what another one has done. That is on record once, as theirs."""
    details = {"deploy_number": version.deploy_number}
    entry = Entry(Action.JOIN_CUT_OVER, actor, version.dag, [version.dag], details)
    await audit.record(connection, replace(entry, to_version_id=version.dag_version_id))


async def _wait_for(wait: "_Wait", waiver: Waiver) -> VersionRow:
    """Releases go on where it did not take over. Who leaves has halted them too, and is on record."""
    try:
        return await _once_level(wait, waiver)
    except BaseException as error:
        await wait.end()
        if isinstance(error, asyncio.CancelledError) and wait.has_halted:
            await _record_left(wait)
        raise


async def _record_left(wait: "_Wait") -> None:
    """Not of what is final by then, which has an entry of its own (ADR 38)."""
    try:
        async with transaction(wait.pool) as connection:
            version = await cutover.deployed(connection, wait.dag_version_id)
    except (TraceError, *_AWAY) as error:
        _log.warning("a cutover that was given up was not recorded", dag=wait.dag, error=str(error))
        return
    if not version.being_built:
        return
    reason = ErrorReason.Name(ErrorReason.ERROR_REASON_NOT_CAUGHT_UP).removeprefix("ERROR_REASON_")
    message = "whoever asked did not wait for it; releases of what is active were halted meanwhile"
    refusal = Refusal(
        Action.CUT_OVER, wait.taker.actor, reason, message, dag=wait.dag, to_version_id=wait.dag_version_id
    )
    await audit.record_refusal(wait.pool, refusal)


async def _once_level(wait: "_Wait", waiver: Waiver) -> VersionRow:
    while True:
        lacking = (await wait.find_lack()).but(waiver)
        if lacking.allows(waiver):
            active = await cutover.cut_over(wait.pool, wait.dag_version_id, wait.taker.actor, waiver)
            if active is not None:
                return active
        elif not lacking.within_reach:
            raise await cutover.not_caught_up(wait.pool, wait.dag_version_id, waiver)
        if not await wait.go_on(lacking):
            raise _too_slow(await cutover.not_caught_up(wait.pool, wait.dag_version_id, waiver), wait.longest)


@dataclass(slots=True)
class _Wait:
    """One wait for a version, through several looks; `end` lets releases go on. `longest` is how long it may take, once
    it has begun."""

    pool: Pool
    taker: barrier.Taker
    longest: timedelta = timedelta()
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    _deadline: float | None = field(default=None, init=False)
    _idle_since: float | None = field(default=None, init=False)
    _took: float = field(default=0.0, init=False)

    @property
    def dag(self) -> str:
        return self.taker.dag

    @property
    def dag_version_id(self) -> str:
        return self.taker.dag_version_id

    async def find_lack(self) -> Lack:
        """What the version lacks now, as far as can be told without locks. Raises DEPLOYMENT_FINAL."""
        began = _now()
        await barrier.note_passed(self.pool, self.dag_version_id)
        async with transaction(self.pool) as connection:
            await cutover.require_building(connection, self.dag_version_id)
            lacking = await cutover.find_lack(connection, self.dag_version_id)
        self._took = _now() - began
        return lacking

    async def go_on(self, lacking: Lack) -> bool:
        """For as long as the look took, at least. False where there is no time left, or no use in waiting. The first
        time, and where the last barrier is not good any more, takes one and halts releases before."""
        first = self._deadline is None
        if self._deadline is None:
            async with transaction(self.pool) as connection:
                self.longest = await barrier.halt_for(connection, self.dag_version_id, cutover.HALT)
            self._deadline = _now() + self.longest.total_seconds()
        left = self._deadline - _now()
        if left <= 0 or self._idle(lacking):
            return False
        if first or (lacking.last and not lacking.awaited):
            length = timedelta(seconds=left)
            await barrier.take_for(self.pool, self.taker, length)
        await self.sleep(max(LOOK_SECONDS, self._took))
        return True

    def _idle(self, lacking: Lack) -> bool:
        """For so long that nothing will come of it."""
        if lacking.working or lacking.reading or lacking.unfinished:
            self._idle_since = None
            return False
        self._idle_since = self._idle_since or _now()
        return _now() - self._idle_since > IDLE_SECONDS

    @property
    def has_halted(self) -> bool:
        """Releases, or was about to."""
        return self._deadline is not None

    async def end(self) -> None:
        """Of a version that is not being built by now it changes nothing. Where the database does not let it be done,
        the halt ends by itself, and what the wait came to is told."""
        if self._deadline is None:
            return
        try:
            async with transaction(self.pool) as connection:
                await halting.end_halt(connection, self.dag_version_id, self.taker.halter)
        except _AWAY as error:
            _log.warning("a halt of releases ends at its time", dag=self.dag, error=str(error))


def _now() -> float:
    return asyncio.get_running_loop().time()


def _too_slow(refusal: TraceError, longest: timedelta) -> TraceError:
    return TraceError(
        ErrorReason.ERROR_REASON_NOT_CAUGHT_UP,
        f"{refusal.message}. Releases of what is active were halted meanwhile, for {longest.seconds} s at most, and it"
        " did not get there: what it waits for is shown by"
        f" `tracectl dag watch {refusal.metadata['dag']}`",
        metadata=refusal.metadata,
    )
