"""What a pinned dataset version is made of, in pages.

One short transaction a page, none across what a reader waits for; where it is all in one page, that of the pin may do.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace

from dispatcher.datasets import store
from dispatcher.datasets.rows import (
    ArtifactRow,
    Bounds,
    ScopeRow,
    TaskRead,
)
from dispatcher.datasets.store import (
    PAGE,
)
from dispatcher.db.pool import Pool, transaction
from dispatcher.db.rows import Connection
from kernel.scopes import ScopeKind
from traceapi.types.v1.scope_pb2 import CURSOR_TYPE_INT64, CURSOR_TYPE_UNSPECIFIED


@dataclass(frozen=True, slots=True)
class Page:
    """Files, or scopes of a dataset without files."""

    artifacts: list[ArtifactRow]
    scopes: list[ScopeRow]
    last: bool


@dataclass(frozen=True, slots=True)
class Manifest:
    """A dataset version at a publication number, within bounds. Later publications change nothing of it."""

    version_id: str
    number: int
    bounds: Bounds
    stored: bool
    """It has files; of others the scopes are told."""

    async def pages(self, pool: Pool, most: int | None = None) -> AsyncIterator[Page]:
        """In scope order; at least one page. Of `most` files or scopes, the first ones, if that is not None."""
        page: Page | None = None
        while page is None or not page.last:
            async with transaction(pool) as connection:
                page = await self.page(connection, page, PAGE if most is None else min(PAGE, most))
            if most is not None:
                most -= len(page.artifacts) + len(page.scopes)
                page = replace(page, last=page.last or most <= 0)
            yield page

    async def page(self, connection: Connection, after: Page | None = None, limit: int = PAGE) -> Page:
        """What follows another page, or the first."""
        artifacts: list[ArtifactRow] = []
        scopes: list[ScopeRow] = []
        if self.stored:
            artifact = after.artifacts[-1] if after else None
            artifacts = await store.visible_artifacts(
                connection, self.version_id, self.number, self.bounds, artifact, limit
            )
        else:
            scope = after.scopes[-1] if after else None
            scopes = await store.visible_events(connection, self.version_id, self.number, self.bounds, scope, limit)
        return Page(artifacts, scopes, len(artifacts) + len(scopes) < limit)


def read_bounds(read: TaskRead) -> Bounds:
    """The task's scope, widened by the input's lookback. A source run reads everything, and so does a task whose scope
    is of the other kind than the dataset's, partition keys or cursors."""
    partition = read.scope_kind == ScopeKind.PARTITION
    if read.scope_kind is None or read.scope_first is None or read.scope_last is None:
        return Bounds()
    if partition != (read.cursor_type == CURSOR_TYPE_UNSPECIFIED):
        return Bounds()
    lower = read.scope_first
    if read.lookback and read.cursor_type == CURSOR_TYPE_INT64:
        lower = max(0, int.from_bytes(lower, "big") - read.lookback).to_bytes(8, "big")
    return Bounds(lower, read.scope_last)
