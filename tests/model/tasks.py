"""The model's tasks and leases: plain values, without a database, without a clock but their own."""

from dataclasses import dataclass, field

HOPS, RANGES = "hops", "ranges"
LEASE = 1000
BACKOFF = 250
UNANSWERED = 250
STEP = 600
"""Time goes on in steps of so many seconds. No moment above is a multiple of it, so the real seconds that a test takes
never decide anything."""
MAX_ATTEMPTS = 3
MAX_LOST_LEASES = 10
MAX_RUN_TASKS = 2
MAX_CONCURRENCY = 3

PASSED = frozenset({"succeeded", "canceled", "skipped"})
"""Whoever comes after it in an order waits no longer."""
FINISHED = PASSED | {"dead"}


@dataclass(frozen=True, slots=True)
class Key:
    """A task, by its job and its number."""

    job: str
    number: int


@dataclass(frozen=True, slots=True)
class Claim:
    """A call of a worker; all that it gets is leased to its one token. It may be made again."""

    number: int


@dataclass(frozen=True, slots=True)
class Lease:
    """What a worker got: of a run, with the epoch of its stream."""

    key: Key
    attempt: int
    claim: Claim
    epoch: int | None = None


@dataclass(frozen=True, slots=True)
class End:
    """An ended attempt: what is on record, and what its worker was answered."""

    claim: Claim
    outcome: str
    answer: str


@dataclass(slots=True)
class Task:
    """As the database has it. `ends` are those of attempts 1, 2, ..."""

    key: Key
    state: str = "queued"
    attempt: int = 0
    failed: int = 0
    lost: int = 0
    claim: Claim | None = None
    until: int = 0
    epoch: int | None = None
    cancel: bool = False
    emitted: bool = False
    refused_attempt: int = 0
    released_at: int = 0
    retry_at: int = 0
    moved: bool = False
    """Out of the hot tables."""
    ends: list[End] = field(default_factory=list)

    @property
    def ordered(self) -> bool:
        return self.key.job == RANGES

    def held_by(self, lease: Lease) -> bool:
        return (self.state, self.attempt, self.claim) == ("running", lease.attempt, lease.claim)

    def start(self, claim: Claim, until: int, epoch: int | None) -> None:
        self.state, self.attempt = "running", self.attempt + 1
        self.claim, self.until, self.epoch = claim, until, epoch

    def end(self, state: str, outcome: str) -> None:
        """Leaves `running`."""
        assert self.claim is not None
        self.ends.append(End(self.claim, outcome, state))
        self.state, self.claim, self.epoch = state, None, None


@dataclass(slots=True)
class Stream:
    """The one stream of `ranges`."""

    epoch: int = 0
    claim: Claim | None = None
    until: int | None = None
    cancel: bool = False

    def leased(self, now: int) -> bool:
        return self.until is not None and self.until > now

    def free(self) -> None:
        self.claim, self.until = None, None


@dataclass(frozen=True, slots=True)
class Seen:
    """What is compared of a task. `cancel`: it runs, and may only stop."""

    state: str
    attempt: int
    failed: int
    lost: int
    cancel: bool
    events: int


@dataclass(frozen=True, slots=True)
class Standing:
    """What is compared after each step. `stream` is its epoch, and whether somebody has it."""

    tasks: dict[Key, Seen]
    stream: tuple[int, bool]
    complete_to: int | None
    hops_complete_to: int | None
