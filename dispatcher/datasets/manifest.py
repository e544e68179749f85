"""What a pinned dataset version is made of, in pages.

One short transaction a page, none across what a reader waits for.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass

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

    pool: Pool
    version_id: str
    number: int
    bounds: Bounds

    async def pages(self, *, stored: bool) -> AsyncIterator[Page]:
        """In scope order; at least one page."""
        artifact: ArtifactRow | None = None
        scope: ScopeRow | None = None
        last = False
        while not last:
            artifacts: list[ArtifactRow] = []
            scopes: list[ScopeRow] = []
            async with transaction(self.pool) as connection:
                if stored:
                    artifacts = await store.visible_artifacts(
                        connection, self.version_id, self.number, self.bounds, artifact
                    )
                else:
                    scopes = await store.visible_events(connection, self.version_id, self.number, self.bounds, scope)
            last = len(artifacts) + len(scopes) < PAGE
            artifact = artifacts[-1] if artifacts else None
            scope = scopes[-1] if scopes else None
            yield Page(artifacts, scopes, last)


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
