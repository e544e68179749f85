"""What is judged after a run, as values: what clients heard, what the harness wrote down of every change, and how the
database and the store stand.

Times are seconds since 1970: clients' and the database's clocks are those of one machine. `Write`, `Claim` and `Cancel`
are of the clients' history; a `verdict` is `ok`, `refused`, or `unknown` where the answer was lost.
"""

from dataclasses import dataclass, field
from typing import Literal

from tests.chaos.evidence_of_changes import ChangesSeen

Verdict = Literal["ok", "refused", "unknown"]
NEVER = float("inf")
UNJUDGED = frozenset({"STALE_LEASE", "STALE_STREAM_EPOCH", "TASK_CANCELED", "TASK_NOT_FOUND", ""})
"""An emit that is refused for one of these says nothing of what it brought: whoever sent it had no right to any more.
Nor does one without a reason: its call was refused as a whole, and nobody looked at it."""


@dataclass(frozen=True, slots=True)
class EventKey:
    """What makes an event one and the same."""

    dataset_id: str
    task_id: str
    scope: bytes


@dataclass(frozen=True, slots=True)
class Emitted:
    """An event of an emit. `event_id` is what it was answered, empty where it was not accepted."""

    key: EventKey
    event_id: str = ""
    duplicate: bool = False


@dataclass(frozen=True, slots=True)
class Write:
    """What a client wanted of one lease. `ended` is NEVER where it never heard."""

    kind: Literal["emit", "end", "beat"]
    task_id: str
    attempt: int
    token_digest: bytes
    began: float
    ended: float
    verdict: Verdict
    reason: str = ""
    """Of a refusal: its name. Of an end that was accepted: the state that was answered."""
    outcome: str = ""
    """Of an end: what the client said, `success`, `failure`, `canceled` or `returned`."""
    events: tuple[Emitted, ...] = ()
    emitted: int = 0
    """Of a success: how many events it stated."""
    process: str = ""


@dataclass(frozen=True, slots=True)
class Claim:
    """A wish for one task; `attempt` is 0 where it was not granted."""

    request_id: str
    task_id: str
    token_digest: bytes
    began: float
    ended: float
    verdict: Verdict
    attempt: int = 0
    reason: str = ""
    process: str = ""


@dataclass(frozen=True, slots=True)
class Cancel:
    """A person's cancel of one task; `ok` where it was acknowledged."""

    task_id: str
    began: float
    ended: float
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class TaskChange:
    """A change of a task's row, as the harness' trigger saw it. `before` is empty where the task was made."""

    seq: int
    task_id: str
    before: str
    state: str
    attempt: int
    token_digest: bytes
    request_id: str
    lease_until: float | None
    stream_epoch: int | None
    at: float
    began: float
    txid: int
    job_version_id: str = ""


@dataclass(frozen=True, slots=True)
class StreamChange:
    """A change of an ordered stream's lease."""

    seq: int
    job_version_id: str
    stream_key: str
    epoch: int
    token_digest: bytes
    lease_until: float | None
    at: float
    began: float


@dataclass(frozen=True, slots=True)
class WatermarkChange:
    """A dataset version became complete up to a cursor."""

    seq: int
    version_id: str
    cursor_key: bytes


@dataclass(frozen=True, slots=True)
class Written:
    """The insert of a row that is written once. Of an event and a file: the dataset version, and whose it is; `name` is
    a file's key, or an attempt's outcome."""

    seq: int
    kind: str
    id: str
    began: float
    txid: int
    version_id: str = ""
    task_id: str = ""
    attempt: int = 0
    name: str = ""


@dataclass(frozen=True, slots=True)
class Task:
    """A task at the end of the run. `reruns`: how often its job was told to run its scope again. `scheduled`: its job
    version is active or being built; of others what is left stays as it is."""

    task_id: str
    job_version_id: str
    event_id: str
    stream_key: str | None
    state: str
    attempt: int
    failed_attempts: int
    lost_leases: int
    max_attempts: int
    max_lost_leases: int
    lease_until: float | None
    released_at: float | None
    reason: str
    scope_first: bytes = b""
    revision: int = 0
    reruns: int = 0
    scheduled: bool = True
    place: bytes = b""
    """What its scope is about, as of events; without the revision."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """An ended attempt."""

    task_id: str
    attempt: int
    token_digest: bytes
    started_at: float
    ended_at: float
    outcome: str


@dataclass(frozen=True, slots=True)
class Event:
    """An accepted event. `number` is that of its publication; `scope_last` the key of the cursor that it reaches to,
    empty where its scope is a partition."""

    event_id: str
    key: EventKey
    scope_last: bytes
    attempt: int
    version_id: str
    artifact_id: str
    publication_id: str
    number: int

    @property
    def place(self) -> tuple[str, bytes]:
        """The dataset version, and what the scope is about, whatever its revision."""
        return self.version_id, self.key.scope.rpartition(b"|")[0]


@dataclass(frozen=True, slots=True)
class Subscription:
    """A job version is owed the events of a dataset version, all of them where `replayed`."""

    job_version_id: str
    version_id: str
    from_number: int
    to_number: int | None
    replayed: bool
    scheduled: bool = False
    foreign: bool = False
    """The dataset is another DAG's, whose pointer the job follows."""


@dataclass(frozen=True, slots=True)
class Artifact:
    """A committed file, and what the store says of its key: `found` is False where there is none."""

    artifact_id: str
    object_key: str
    publication_id: str
    sha256: bytes
    found: bool
    found_sha256: bytes
    size_bytes: int = 0
    found_bytes: int = 0
    version_id: str = ""


@dataclass(frozen=True, slots=True)
class Bounds:
    """How late things may be. `unanswered`: after so long a wake-up is sent again; `scan`: how often leases are
    looked at."""

    scan: float = 0.6
    unanswered: float = 1.0
    slack: float = 3.0
    rollback_versions: int = 1
    orphan_grace: float = 2.0
    collecting: float = 3.0
    """Two rounds of the collector's duties take no longer."""


@dataclass(slots=True)
class Evidence:
    """All of it. `now` is until when the programs served, or when the database was read; `drained` whether faults had
    stopped and time was given. `attended`: duties ran by themselves all the time, and nobody moved that. `moved_tasks`:
    how many of `tasks` were found among the finished ones."""

    now: float = 0.0
    drained: bool = True
    attended: bool = True
    bounds: Bounds = field(default_factory=Bounds)
    claims: list[Claim] = field(default_factory=list)
    writes: list[Write] = field(default_factory=list)
    cancels: list[Cancel] = field(default_factory=list)
    task_changes: list[TaskChange] = field(default_factory=list)
    stream_changes: list[StreamChange] = field(default_factory=list)
    watermark_changes: list[WatermarkChange] = field(default_factory=list)
    written: list[Written] = field(default_factory=list)
    tasks: list[Task] = field(default_factory=list)
    moved_tasks: int = 0
    attempts: list[Attempt] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    subscriptions: list[Subscription] = field(default_factory=list)
    artifacts: list[Artifact] = field(default_factory=list)
    changes: ChangesSeen = field(default_factory=ChangesSeen)
    gone_events: frozenset[str] = frozenset()
    """Of dataset versions that were collected."""
    gone_tasks: frozenset[str] = frozenset()
    """Of job versions that were collected with them."""
