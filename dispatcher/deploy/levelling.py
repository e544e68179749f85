"""A cutover that a person asks for: the version that was built gets a bounded time to be level with what is active.

Under steady traffic what is active is ahead by some scopes at every look. So while only these are missing, a barrier is
taken and releases of the jobs that are about to go are held, as an automatic cutover does; acceptance of events is
never held. No transaction is open meanwhile, and who waits no more leaves a hold that ends by itself, and a barrier
that the next call finds passed.
"""

import asyncio
from dataclasses import dataclass, field
from datetime import timedelta

from dispatcher.db.pool import Pool, transaction
from dispatcher.deploy import barrier, cutover, stages
from dispatcher.deploy.readiness import Lack
from dispatcher.deploy.store import VersionRow
from kernel.errors import TraceError
from traceapi.types.v1.errors_pb2 import ErrorReason

LOOK_SECONDS = 0.1
IDLE_SECONDS = 5.0
"""A version that has nothing to do and is behind all the same will not get there: its watermarks would have moved."""


async def cut_over_level(
    pool: Pool, dag_version_id: str, actor: str, *, watermarks_may_go_back: bool = False
) -> VersionRow:
    """Raises as `cutover.cut_over`; NOT_CAUGHT_UP where it did not get there within `cutover.HELD_RELEASES`."""
    wait = _Wait(pool, dag_version_id)
    try:
        while True:
            try:
                return await cutover.cut_over(
                    pool, dag_version_id, actor, watermarks_may_go_back=watermarks_may_go_back
                )
            except TraceError as refusal:
                if refusal.reason != ErrorReason.ERROR_REASON_NOT_CAUGHT_UP or not await wait.worth():
                    raise
                if not await wait.until_level():
                    raise _too_slow(refusal) from refusal
    finally:
        await wait.end()


@dataclass(slots=True)
class _Wait:
    """One wait for a version, through several tries; `end` lets releases go on."""

    pool: Pool
    dag_version_id: str
    _deadline: float | None = None
    _idle_since: float | None = field(default=None)

    async def worth(self) -> bool:
        """Whether it only lacks the last scopes, or lacked them a moment ago. The first time, takes a barrier and holds
        releases."""
        lacking = await self._look()
        if not lacking.within_reach:
            return False
        first = self._deadline is None
        if self._deadline is None:
            self._deadline = _now() + cutover.HELD_RELEASES.total_seconds()
        left = self._deadline - _now()
        if left > 0 and (first or lacking.last):
            async with transaction(self.pool) as connection:
                dag = (await cutover.deployed(connection, self.dag_version_id)).dag
            await barrier.take(self.pool, dag, self.dag_version_id, timedelta(seconds=left), asked=True)
        return True

    async def until_level(self) -> bool:
        """False where it is not, in time. It rests before each look: a try takes locks for which acceptance waits."""
        while self._deadline is not None and _now() < self._deadline:
            await asyncio.sleep(LOOK_SECONDS)
            lacking = await self._look()
            if lacking.level or lacking.dead or lacking.incomparable:
                return True  # it is level, or the next try says what it lacks
            if lacking.working or lacking.reading or lacking.unfinished:
                self._idle_since = None
            elif self._idle_since is None:
                self._idle_since = _now()
            elif _now() - self._idle_since > IDLE_SECONDS:
                return False
        return False

    async def end(self) -> None:
        """Of a version that is active by now it changes nothing."""
        if self._deadline is not None:
            async with transaction(self.pool) as connection:
                await stages.end_hold(connection, self.dag_version_id)

    async def _look(self) -> Lack:
        await barrier.note_passed(self.pool, self.dag_version_id)
        async with transaction(self.pool) as connection:
            return await cutover.look(connection, self.dag_version_id)


def _now() -> float:
    return asyncio.get_running_loop().time()


def _too_slow(refusal: TraceError) -> TraceError:
    return TraceError(
        ErrorReason.ERROR_REASON_NOT_CAUGHT_UP,
        f"{refusal.message}. Releases of what is active were held meanwhile, for {cutover.HELD_RELEASES.seconds} s at"
        " most, and it did not get there: what it waits for is shown by `tracectl dag watch`",
        metadata=refusal.metadata,
    )
