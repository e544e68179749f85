"""What an emit says and what becomes of it, as values."""

import functools
import hashlib
import struct
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from dispatcher.tasks.leases import LeaseRef, Refusal, StreamRef
from kernel.scopes import ScopeKey

MAX_ROWS = 5_000
"""Of one transaction."""
_OTHER_ROWS = 1_250  # what comes beside events: the leases of a run, watermarks, state
_EVENT_ROWS = 3  # itself, and its file, which may replace another
_EXPECTED_CONSUMERS = 3  # that an emit's size allows for even where there are fewer: they may come later
_MAX_EVENTS = 1_000
_SIZES = struct.Struct(">QQQ")


def max_events_per_emit(consumers: int) -> int:
    """Events that one emit may carry, so that they fit one transaction with a task for each of their consumers."""
    return max(1, min(_MAX_EVENTS, (MAX_ROWS - _OTHER_ROWS) // (_EVENT_ROWS + max(consumers, _EXPECTED_CONSUMERS))))


@dataclass(frozen=True, slots=True)
class NewArtifact:
    """A file to commit. `schema` is column to type, `column_order` empty or its columns, `scope` the extent of its
    rows."""

    artifact_id: str
    dataset_id: str
    object_key: str
    scope: ScopeKey
    cursor_type: int
    row_count: int
    size_bytes: int
    sha256: bytes
    schema_digest: bytes
    schema: Mapping[str, str]
    column_order: Sequence[str] = ()


class NewEvent(NamedTuple):
    """An event to accept. `artifact_index` and `task_index` point into its item."""

    event_id: str
    dataset_id: str
    scope: ScopeKey
    cursor_type: int
    artifact_index: int | None
    task_index: int
    manifest: bytes
    event_time: datetime | None

    def payload_digest(self, artifact_sha256: bytes) -> bytes:
        """What tells a repetition from a contradiction: the rows, the units and the time that the event speaks of."""
        if self.manifest:  # it may be large, and is hardly ever another event's
            return _payload_digest(artifact_sha256, self.manifest, self.event_time)
        return _digest_of_time(artifact_sha256, self.event_time)


def _payload_digest(artifact_sha256: bytes, manifest: bytes, event_time: datetime | None) -> bytes:
    time = event_time.isoformat().encode() if event_time else b""
    sizes = len(artifact_sha256), len(manifest), len(time)
    return hashlib.sha256(_SIZES.pack(*sizes) + artifact_sha256 + manifest + time).digest()


@functools.lru_cache(maxsize=256)
def _digest_of_time(artifact_sha256: bytes, event_time: datetime | None) -> bytes:
    """The same without a manifest: what a task emits at once is often of one time."""
    return _payload_digest(artifact_sha256, b"", event_time)


@dataclass(frozen=True, slots=True)
class StateChange:
    """Compare-and-set of operator state."""

    data: bytes
    expected_version: int


@dataclass(frozen=True, slots=True)
class WatermarkMove:
    """A dataset is complete up to a cursor."""

    dataset_id: str
    cursor_key: bytes
    cursor_type: int


class Emit(NamedTuple):
    """What one attempt, or one run, publishes at once: accepted or refused as a whole."""

    leases: tuple[LeaseRef, ...]
    stream: StreamRef | None
    artifacts: tuple[NewArtifact, ...] = ()
    events: tuple[NewEvent, ...] = ()
    state: StateChange | None = None
    watermarks: tuple[WatermarkMove, ...] = ()
    unverified: Refusal | None = None
    """A verdict from before the transaction, such as that the store's objects were not as stated."""
    consumers: int = 0
    """Tasks that each event makes, at most, as was known when its cost was counted."""

    def with_consumers(self, consumers: int) -> "Emit":
        return self if consumers == self.consumers else self._replace(consumers=consumers)

    def refused(self, refusal: Refusal) -> "Emit":
        """Without what it wanted to write: all that is left to do is to note on its tasks that it was refused."""
        return Emit(self.leases, self.stream, unverified=refusal)

    @property
    def key(self) -> Hashable:
        """Emits and completions of one key keep their order: a run's stream, else the task."""
        return self.stream.key if self.stream is not None else self.leases[0].task_id

    @property
    def cost(self) -> int:
        """An upper bound of the rows that it writes: an artifact may replace another; of each dataset the publication,
        the version's head and its schema."""
        published = len(self.events)  # most emits: one, or none
        if published > 1 or self.artifacts:
            published = len({one.dataset_id for one in self.artifacts} | {one.dataset_id for one in self.events})
        made = len(self.events) * (1 + self.consumers) + 2 * len(self.artifacts) + 3 * published
        return len(self.leases) + made + len(self.watermarks) + (self.state is not None)


class EventVerdict(NamedTuple):
    """The event that now stands under the key, and whether it stood before."""

    event_id: str
    duplicate: bool = False
    differs: bool = False


@dataclass(frozen=True, slots=True)
class Publication:
    """What one call of `accept` wrote, and what its transaction numbers at its end: by dataset version."""

    publication_id: str
    event_counts: frozenset[tuple[str, int]]
    """Dataset versions, each with how many events it gained; none where it gained files alone."""
    replacing_ids: frozenset[str]
    """Artifacts that may take the place of others."""


class Accepted(NamedTuple):
    """One verdict per event; the state's version, 0 where none was written. The publication of all that was accepted
    together is with the first. `overtaken`: it was accepted before, and its state and watermarks have been written
    over since."""

    events: tuple[EventVerdict, ...]
    state_version: int
    publication: Publication | None = None
    overtaken: bool = False


@dataclass(frozen=True, slots=True)
class ConsumersChanged:
    """The emit makes more tasks than its cost allowed for: it was not judged, and is to be submitted again."""

    consumers: int


EmitVerdict = Accepted | Refusal
EmitResult = EmitVerdict | ConsumersChanged
