"""Looks through the artifact store for files of lost attempts, a chunk at a time, and removes them.

What decides is in `orphans.py`. No transaction is open while the store is asked. Wherever it ends, nothing dangles: a
file is an orphan before and after, and gone or not. Two sweeps at once remove the same files, which harms nobody.
"""

import asyncio
from collections.abc import AsyncGenerator, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import islice
from typing import TypeVar

from dispatcher.audit import store as audit
from dispatcher.audit.entries import Action, Entry
from dispatcher.collecting import store
from dispatcher.collecting.orphans import PREFIX, FileKey, KeyFacts, abandoned, orphans
from dispatcher.db.pool import Pool, single_statements, transaction
from kernel.artifacts.store import ArtifactStore
from kernel.crash import crash

Item = TypeVar("Item")

CHUNK = 1_000
"""Files that are judged and removed together."""


@dataclass(frozen=True, slots=True)
class Orphan:
    """A file that nobody names. `dataset_id` is empty where its version is gone."""

    key: str
    dataset_id: str
    size_bytes: int
    modified_at: datetime | None


@dataclass(frozen=True, slots=True)
class Swept:
    """What one chunk had. `strange` are objects that no wrapper writes: nobody knows whose they are, they stay."""

    looked_at: int
    strange: int = 0
    orphans: Sequence[Orphan] = field(default_factory=tuple)
    unfinished: int = 0
    unfinished_bytes: int = 0


class Sweeper:
    """Remembers nothing between two sweeps."""

    def __init__(self, pool: Pool, artifacts: ArtifactStore, grace: timedelta) -> None:
        self._pool = pool
        self._artifacts = artifacts
        self._grace = grace

    async def sweep(self, actor: str, *, dry_run: bool) -> AsyncGenerator[Swept, None]:
        """Chunk by chunk, of files and at last of unfinished writes. TraceError where the store gives no answer."""
        listing = self._artifacts.list(PREFIX)
        while found := await asyncio.to_thread(_take, listing):
            keys = [key for item in found if (key := FileKey.parse(item.key)) is not None]
            facts = await self._facts(keys)
            lost = [
                Orphan(item.key, facts[item.key].dataset_id, item.size_bytes, item.modified_at)
                for item in orphans(found, facts, self._grace)
            ]
            if lost and not dry_run:
                await self._remove(lost, actor)
            yield Swept(len(found), len(found) - len(keys), lost)
        yield await self._unfinished(actor, dry_run)

    async def _facts(self, keys: Sequence[FileKey]) -> dict[str, KeyFacts]:
        if not keys:
            return {}
        async with single_statements(self._pool) as connection:
            return dict(await store.key_facts(connection, keys))

    async def _remove(self, lost: Sequence[Orphan], actor: str) -> None:
        await asyncio.to_thread(self._artifacts.delete, [orphan.key for orphan in lost])
        crash("sweep.deleted")
        await self._record(actor, files=len(lost), size_bytes=sum(orphan.size_bytes for orphan in lost))

    async def _unfinished(self, actor: str, dry_run: bool) -> Swept:
        async with single_statements(self._pool) as connection:
            now = await store.now(connection)
        writes = abandoned(await asyncio.to_thread(lambda: list(self._artifacts.unfinished())), now, self._grace)
        size_bytes = sum(write.size_bytes for write in writes)
        if writes and not dry_run:
            for write in writes:
                await asyncio.to_thread(self._artifacts.discard, write)
            await self._record(actor, unfinished=len(writes), size_bytes=size_bytes)
        return Swept(0, unfinished=len(writes), unfinished_bytes=size_bytes)

    async def _record(self, actor: str, **counts: int) -> None:
        async with transaction(self._pool) as connection:
            await audit.record(connection, Entry(Action.COLLECT_ORPHANS, actor, PREFIX, [], counts))


def _take(listing: Iterator[Item]) -> list[Item]:
    return list(islice(listing, CHUNK))
