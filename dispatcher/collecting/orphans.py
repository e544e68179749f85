"""Which files of the artifact store are orphans. Pure.

A wrapper stores a file under a key that names dataset version, task, attempt and a number, and then names it in an
emit. Where the attempt is lost between the two, or the emit is refused, or its events were accepted before from an
earlier attempt, no row will ever name the file.

The proof that none will, whatever happens at the same time: an artifact's row is written under the lock of its
producer's task, by the attempt that the task is running. One statement reads both in one snapshot (`key_facts`), so it
sees the attempt running, or its end with all that it wrote. An attempt that has ended never runs again, and keys are
never used twice. The grace comes on top, by the store's own time of the file.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Self

from kernel.artifacts.store import StoredObject, UnfinishedWrite

PREFIX = "data/"
_UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
_KEY = re.compile(rf"data/({_UUID})/({_UUID})-([0-9]{{1,9}})-[0-9]{{1,9}}\.parquet", re.ASCII)


@dataclass(frozen=True, slots=True)
class FileKey:
    """What the key of an attempt's file says."""

    key: str
    dataset_version_id: str
    task_id: str
    attempt: int

    @classmethod
    def parse(cls, key: str) -> Self | None:
        """None for what no wrapper writes: nobody knows whose it is, and it stays."""
        found = _KEY.fullmatch(key)
        return cls(key, found[1], found[2], int(found[3])) if found else None


@dataclass(frozen=True, slots=True)
class KeyFacts:
    """What the database says of a key, all at one moment. `dataset_id` is empty where the version is gone."""

    key: str
    named: bool
    running: bool
    dataset_id: str
    now: datetime


def orphans(objects: Iterable[StoredObject], facts: Mapping[str, KeyFacts], grace: timedelta) -> list[StoredObject]:
    """Those that nobody names, nobody can come to name, and that have lain long enough. `facts` by key."""
    return [found for found in objects if (fact := facts.get(found.key)) and _is_orphan(found, fact, grace)]


def abandoned(writes: Iterable[UnfinishedWrite], now: datetime, grace: timedelta) -> list[UnfinishedWrite]:
    """Writes that were begun so long ago that nobody is at them."""
    return [write for write in writes if write.modified_at < now - grace]


def _is_orphan(found: StoredObject, fact: KeyFacts, grace: timedelta) -> bool:
    if fact.named or fact.running or found.modified_at is None:
        return False
    return found.modified_at < fact.now - grace
