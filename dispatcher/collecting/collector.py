"""The collector as others see it: what a call asks of it, and its two duties.

Both duties may run on any number of dispatchers. Looking through the store is one dispatcher's each time, by a row that
says when it was last begun; removing what is condemned is whoever's holds the version's row.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import timedelta

import structlog

from dispatcher.collecting import condemning, store
from dispatcher.collecting.condemning import UnusedPage, Verdict
from dispatcher.collecting.reach import Retention
from dispatcher.collecting.removal import Removed, Remover
from dispatcher.collecting.sweep import Sweeper, Swept
from dispatcher.db.pool import Pool, single_statements, transaction
from kernel.artifacts.store import ArtifactStore
from kernel.errors import TraceError

_log = structlog.get_logger(__name__)

ACTOR = "dispatcher"
"""Of what the duties do."""
CALL_SECONDS = 2.0
"""For how long a call removes before it answers."""
_LONGEST_REST_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Collector:
    """Holds nothing but what it was given."""

    pool: Pool
    artifacts: ArtifactStore
    retention: Retention

    def sweep(self, actor: str, *, dry_run: bool) -> AsyncGenerator[Swept, None]:
        """See Sweeper."""
        return Sweeper(self.pool, self.artifacts, self.retention.orphan_grace).sweep(actor, dry_run=dry_run)

    async def unused_versions(self, dag: str | None, after: str | None, limit: int) -> UnusedPage:
        """What could be condemned now."""
        return await condemning.unused_versions(self.pool, self.retention, dag, after, limit)

    async def condemn(self, version_ids: Sequence[str], actor: str) -> dict[str, Verdict]:
        """By version."""
        return await condemning.condemn(self.pool, self.retention, version_ids, actor) if version_ids else {}

    async def remove_for_a_while(self, actor: str) -> tuple[Removed, int]:
        """What was removed of condemned versions, and how many are left."""
        remover = Remover(self.pool, self.artifacts)
        removed, until = Removed(), time.monotonic() + CALL_SECONDS
        while step := await remover.step(actor):
            removed += step
            if time.monotonic() > until:
                break
        async with single_statements(self.pool) as connection:
            return removed, await store.condemned_count(connection)


class Duties:
    """What the collector does by itself: rounds of bounded work, for `duties.Duty`."""

    def __init__(self, collector: Collector, sweep_every: timedelta) -> None:
        self._collector = collector
        self._sweep_every = sweep_every
        self._remover = Remover(collector.pool, collector.artifacts)
        self._sweep: AsyncIterator[Swept] | None = None

    async def remove(self) -> int:
        """A page of what is condemned. A store that gives no answer is asked again with the next round."""
        began = time.monotonic()
        try:
            removed = await self._remover.step(ACTOR)
        except TraceError as error:
            _log.warning("condemned versions wait for the artifact store", error=error.message)
            return 0
        if removed:
            await _rest(began)
        return removed.files + removed.rows + removed.versions

    async def sweep(self) -> int:
        """A chunk of a sweep, where one is under way or due; answers whether there is more of it."""
        began = time.monotonic()
        if self._sweep is None:
            async with transaction(self._collector.pool) as connection:
                if not self._sweep_every or not await store.begin_sweep(connection, self._sweep_every):
                    return 0
            self._sweep = self._collector.sweep(ACTOR, dry_run=False)
        sweep, self._sweep = self._sweep, None  # one that fails is not gone on with
        try:
            swept = await anext(sweep, None)
        except TraceError as error:
            _log.warning("the artifact store was not looked through", error=error.message)
            return 0
        if swept is None:
            return 0
        if swept.orphans or swept.unfinished:
            _log.info("orphans removed", files=len(swept.orphans), unfinished=swept.unfinished)
        await _rest(began)
        self._sweep = sweep
        return 1


async def _rest(began: float) -> None:
    """It gives way: the other half of the time is that of what people wait for."""
    await asyncio.sleep(min(time.monotonic() - began, _LONGEST_REST_SECONDS))
