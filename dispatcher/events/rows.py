"""What the database answers about events, and what is written of accepted ones, as values."""

from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from dispatcher.events.values import NewArtifact, NewEvent
from dispatcher.tasks.leases import LeaseRef
from kernel.scopes import ScopeKey, ScopeKind
from traceapi.types.v1.dag_pb2 import OutputSpec, UpdateMode


@dataclass(frozen=True, slots=True)
class JobOutputRow:
    """A dataset version that a job version produces."""

    job_version_id: str
    dag: str
    job: str
    kind: str
    ordered: bool
    dataset_id: str
    dataset_version_id: str
    cursor_type: int
    stored: bool
    spec: bytes
    schema_digest: bytes | None

    @property
    def replaces(self) -> bool:
        return OutputSpec.FromString(self.spec).update != UpdateMode.UPDATE_MODE_APPEND


class EventKey(NamedTuple):
    """By what a repeated event is known."""

    dataset_version_id: str
    task_id: str
    scope: ScopeKey


Span = tuple[str, str]
"""A dataset version and a task: whose events may stand one after the other."""


class ExistingEvent(NamedTuple):
    """The event that stands under a key; `position` counts the keys asked for, from 1."""

    position: int
    event_id: str
    producer_attempt: int
    payload_digest: bytes


@dataclass(frozen=True, slots=True)
class ExistingArtifact:
    """The artifact that stands under an object key."""

    object_key: str
    artifact_id: str
    sha256: bytes
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Extent:
    """The scope of the visible artifact that may overlap; `position` counts the extents asked for, from 1."""

    position: int
    scope_first: bytes
    scope_last: bytes


@dataclass(frozen=True, slots=True)
class ArtifactInsert:
    """An artifact with what its dataset and its producer add."""

    artifact: NewArtifact
    dataset_version_id: str
    producer: LeaseRef


class EventInsert(NamedTuple):
    """An event with what its dataset, its producer and its artifact add."""

    event: NewEvent
    key: EventKey
    producer: LeaseRef
    origin: str
    artifact_id: str | None
    payload_digest: bytes


class EventPart(NamedTuple):
    """What an event has in common with others of its emit."""

    dataset_version_id: str
    producer: LeaseRef
    kind: ScopeKind
    revision: int
    origin: str


@dataclass(frozen=True, slots=True)
class DerivedWatermark:
    """What a duty needs to move an output's watermark. `producers` are the jobs that write it now."""

    job_version_id: str
    covered: bytes
    first_open: bytes | None
    dataset_version_id: str
    cursor_type: int
    present: bytes | None
    producers: int


@dataclass(frozen=True, slots=True)
class ReplayTurn:
    """Which subscription gets the next page."""

    dag: str
    job_version_id: str
    input_version_id: str
    from_number: int


@dataclass(frozen=True, slots=True)
class Replay:
    """A subscription that is owed retained events of publications in (after_number, from_number], and how far it is.

    Without the scopes that it had of the dataset version instead of which it reads this one."""

    job_version_id: str
    input_version_id: str
    from_number: int
    replay_key: bytes | None
    replay_event_id: str | None
    after_number: int
    instead_of_version_id: str | None


@dataclass(frozen=True, slots=True)
class ReplayedPage:
    """Its last event; `raised` where some of it counts as newer than what another version of the dataset has."""

    key: bytes
    event_id: str
    raised: bool


@dataclass(frozen=True, slots=True)
class EventRow:
    """An event as people see it."""

    event_id: str
    dataset_id: str
    dataset_version_id: str
    cursor_type: int
    scope_kind: int
    scope_first: bytes
    scope_last: bytes
    revision: int
    producer_task_id: str
    producer_attempt: int
    artifact_id: str | None
    publication_number: int
    manifest: bytes | None
    event_time: datetime | None
    event_origin: str
    accepted_at: datetime


@dataclass(frozen=True, slots=True)
class EventQuery:
    """Conditions joined by "and"; None is no condition. `before` pages: events older than this one."""

    dataset_id: str | None = None
    first: bytes | None = None
    last: bytes | None = None
    before: str | None = None
    limit: int = 100
