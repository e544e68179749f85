"""The port of the artifact store, and the rules that every adapter keeps.

Objects are immutable: a key is written once. Writing the same content again is a repeat and succeeds; writing other
content is an ArtifactConflict, and what was there stays. An object is visible whole or not at all, and durable when
`put` returns. Only the collector deletes, and what it deletes nobody names any more. Keys are relative names such as
`data/<dataset_version_id>/<task_id>-1-0.parquet`, as the contract's rule for `Artifact.key` says.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import BinaryIO, Protocol

from kernel.errors import TraceError, Violation
from traceapi.types.v1 import errors_pb2

MAX_KEY_BYTES = 512
_KEY = re.compile(r"[A-Za-z0-9._=-]+(/[A-Za-z0-9._=-]+)*", re.ASCII)
_PREFIX = re.compile(r"[A-Za-z0-9._=/-]*", re.ASCII)


@dataclass(frozen=True, slots=True)
class StoredObject:
    """What the store knows of an object."""

    key: str
    size_bytes: int
    sha256: bytes
    """32 bytes; empty where the digest was not asked for."""
    modified_at: datetime | None = field(default=None, compare=False)
    """By the store's clock, where it was listed."""


@dataclass(frozen=True, slots=True)
class UnfinishedWrite:
    """A write that has not ended, or that a crash cut off. `name` is the store's own; `key` where it has one."""

    name: str
    key: str
    size_bytes: int
    modified_at: datetime


@dataclass(frozen=True, slots=True)
class RangedObject:
    """An object that is read in parts."""

    size_bytes: int
    sha256: bytes
    """32 bytes; empty where the store would have to read all of it."""
    read: Callable[[int, int], bytes]
    """Takes a position and a length, answers these bytes. ARTIFACT_LOST where another object has taken its place."""


class ArtifactConflict(TraceError):
    """The key holds other content already."""

    def __init__(self, key: str) -> None:
        message = f"the artifact {key} was written before with other content"
        super().__init__(errors_pb2.ERROR_REASON_ARTIFACT_CONFLICT, message, metadata={"key": key})


class ArtifactMissing(TraceError):
    """The key holds nothing."""

    def __init__(self, key: str) -> None:
        message = f"the artifact {key} is not in the store"
        super().__init__(errors_pb2.ERROR_REASON_ARTIFACT_LOST, message, metadata={"key": key})


def store_unavailable(store: str, why: str) -> TraceError:
    """The store does not answer at the moment: what was asked may be asked again."""
    return TraceError(errors_pb2.ERROR_REASON_UNAVAILABLE, f"the artifact store {store} does not answer: {why}")


def is_unavailable(error: TraceError) -> bool:
    """Whether a store may answer what it has not answered now."""
    return error.reason == errors_pb2.ERROR_REASON_UNAVAILABLE


def store_unusable(store: str, why: str, remedy: str) -> TraceError:
    """The store will not do this however often it is asked, until a person has changed something.

    INTERNAL, because it is the matter of who runs the program and not of who called it.
    """
    return TraceError(errors_pb2.ERROR_REASON_INTERNAL, f"the artifact store {store} cannot be used: {why}; {remedy}")


class ArtifactStore(Protocol):
    """Immutable objects by key. Methods block: call them from a thread where a loop must not wait.

    Every method raises TraceError: UNAVAILABLE where the store does not answer, INTERNAL where it refuses this program.
    """

    def check(self, *, writable: bool) -> None:
        """Asks the store whether it can be used as it must be, before any work depends on it."""
        ...

    def put(self, key: str, source: Path) -> StoredObject:
        """Store a copy of the file. ArtifactConflict where the key holds other content."""
        ...

    def put_bytes(self, key: str, data: bytes) -> StoredObject:
        """Store the bytes. ArtifactConflict where the key holds other content."""
        ...

    def stat(self, key: str, *, digest: bool) -> StoredObject | None:
        """The object, or None where there is none. With `digest` its content is hashed, by the store or here."""
        ...

    def open(self, key: str) -> BinaryIO:
        """The object's content, seekable, to be closed by the caller. ArtifactMissing where there is none."""
        ...

    def ranged(self, key: str) -> RangedObject:
        """The object, to be read in parts, by many threads. ArtifactMissing where there is none."""
        ...

    def local_path(self, key: str) -> Path | None:
        """Where the object lies or would lie on a disk of this machine, to be read in place; None for other stores."""
        ...

    def list(self, prefix: str) -> Iterator[StoredObject]:
        """The objects whose key begins with `prefix`, in the order of the store, without digests. Read as it is asked
        for: what comes or goes meanwhile may be there or not."""
        ...

    def delete(self, keys: Sequence[str]) -> None:
        """Remove objects. What is not there is as good as removed, so that a repeat goes on. A crash of the store's
        machine may bring one back."""
        ...

    def unfinished(self) -> Iterator[UnfinishedWrite]:
        """What writes have left beside the objects, those under way included."""
        ...

    def discard(self, write: UnfinishedWrite) -> None:
        """Remove it. A write that goes on all the same fails; it never becomes an object in part."""
        ...


def check_key(key: str) -> str:
    """The key itself; TraceError INVALID_REQUEST where it could leave the store or break the contract's rule."""
    if len(key) > MAX_KEY_BYTES or not _KEY.fullmatch(key) or any(part in (".", "..") for part in key.split("/")):
        raise _invalid(key, "is no key: names of letters, digits and '._=-', separated by '/', without '.' and '..'")
    return key


def check_prefix(prefix: str) -> str:
    """The prefix itself; TraceError INVALID_REQUEST where no key could begin with it."""
    if not _PREFIX.fullmatch(prefix) or prefix.startswith("/") or any(p in (".", "..") for p in prefix.split("/")[:-1]):
        raise _invalid(prefix, "is no beginning of a key")
    return prefix


def _invalid(key: str, description: str) -> TraceError:
    violation = Violation("key", f"{key!r} {description}")
    return TraceError(
        errors_pb2.ERROR_REASON_INVALID_REQUEST, f"artifact key {key!r} {description}", violations=(violation,)
    )
