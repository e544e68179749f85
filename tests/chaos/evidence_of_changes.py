"""What is judged of changes: how versions took each other's place, who read what meanwhile, and what was collected.

`seq` is the one numbering of everything that the harness' triggers wrote down. Rows that the collector took stay here.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

RUNNABLE = frozenset({"running", "staged"})


@dataclass(frozen=True, slots=True)
class DagMove:
    """What the DAG serves, and what is being built beside it, from then on; empty where nothing is."""

    seq: int
    dag: str
    active_version_id: str
    staged_version_id: str
    at: float
    txid: int


@dataclass(frozen=True, slots=True)
class Activated:
    """A DAG version took over, under this deploy number."""

    seq: int
    dag: str
    dag_version_id: str
    deploy_number: int
    at: float
    txid: int


@dataclass(frozen=True, slots=True)
class Activation:
    """How the product has it on record: served from one deploy number to before the other."""

    dag: str
    dag_version_id: str
    from_deploy: int
    to_deploy: int | None


@dataclass(frozen=True, slots=True)
class RunChange:
    """A job version may run, or may not, from then on."""

    seq: int
    job_version_id: str
    run_state: str
    epoch: int
    at: float
    txid: int


@dataclass(frozen=True, slots=True)
class Said:
    """An entry of the product's audit."""

    seq: int
    method: str
    txid: int


@dataclass(frozen=True, slots=True)
class Listened:
    """A job version gets the events of a dataset version from then on, or does not any more."""

    seq: int
    job_version_id: str
    version_id: str
    listens: bool
    txid: int


@dataclass(frozen=True, slots=True)
class Rerun:
    """What a person asked to be run again, by the id of the request; `task_count` is None where nobody answered."""

    request_id: str
    task_count: int | None


@dataclass(frozen=True, slots=True)
class Head:
    """How a dataset version is numbered: the number that its head is at, and those of its publications."""

    version_id: str
    number: int
    first: int
    last: int
    count: int


@dataclass(frozen=True, slots=True)
class Condemned:
    """A dataset version was given up."""

    seq: int
    version_id: str
    at: float


@dataclass(frozen=True, slots=True)
class PinChange:
    """A pin of dataset versions holds until then; `until` is None where it was released."""

    seq: int
    pin_id: str
    until: float | None


@dataclass(frozen=True, slots=True)
class Call:
    """What a person asked of a DAG or of the collector. `verdict` as of a write."""

    method: str
    began: float
    ended: float
    verdict: str
    reason: str = ""
    deploy_number: int = 0
    """Of an answer that names it."""


@dataclass(frozen=True, slots=True)
class Read:
    """What a reader saw of all datasets of the chain at once: versions by dataset, and what the rows of their files
    say. `session` is whose it is; one after the other."""

    session: str
    began: float
    ended: float
    deploy_number: int
    versions: Mapping[str, str]
    tags: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """By dataset version."""
    lost: tuple[str, ...] = ()
    """What the living pin should have held and did not."""


@dataclass(frozen=True, slots=True)
class Seen:
    """A file as somebody saw it: `mark` tells one content from another."""

    key: str
    mark: str


@dataclass(frozen=True, slots=True)
class Deleted:
    """A dispatcher was about to delete a file, which was so old."""

    key: str
    at: float
    age: float


@dataclass
class ChangesSeen:
    """All of it."""

    moves: list[DagMove] = field(default_factory=list)
    activated: list[Activated] = field(default_factory=list)
    activations: list[Activation] = field(default_factory=list)
    pointers: list[tuple[str, str]] = field(default_factory=list)
    """Dataset and version, as they are served at the end."""
    runs: list[RunChange] = field(default_factory=list)
    said: list[Said] = field(default_factory=list)
    listened: list[Listened] = field(default_factory=list)
    reruns: list[Rerun] = field(default_factory=list)
    heads: list[Head] = field(default_factory=list)
    jobs: dict[str, frozenset[str]] = field(default_factory=dict)
    """Job versions by DAG version."""
    datasets: dict[str, dict[str, str]] = field(default_factory=dict)
    """Dataset versions by DAG version and dataset."""
    outputs: dict[str, frozenset[str]] = field(default_factory=dict)
    """Dataset versions by job version."""
    tags: dict[str, str] = field(default_factory=dict)
    """What rows have to say, by dataset version."""
    condemned: list[Condemned] = field(default_factory=list)
    left: int = 0
    """Versions that were condemned and are still there."""
    pinned: list[tuple[int, str, str]] = field(default_factory=list)
    """Sequence number, pin and dataset version."""
    pins: list[PinChange] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    reads: list[Read] = field(default_factory=list)
    files: list[Seen] = field(default_factory=list)
    deleted: list[Deleted] = field(default_factory=list)
    stored: dict[str, float] = field(default_factory=dict)
    """What lies in the store at the end, and how old it is."""
    noticed: list[tuple[int, float]] = field(default_factory=list)
    """Deploy numbers that somebody has seen, and when."""

    @cached_property
    def gone(self) -> frozenset[str]:
        """Dataset versions that were given up."""
        return frozenset(item.version_id for item in self.condemned)

    @cached_property
    def gone_jobs(self) -> frozenset[str]:
        """Job versions that wrote some of them."""
        return frozenset(job for job, versions in self.outputs.items() if versions & self.gone)
