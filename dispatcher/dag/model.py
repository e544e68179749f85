"""What reading a DAG document yields: problems, or the resolved DAG with every default filled in. Values, no rules.

Messages inside these values (`OutputSpec`, `ExecutionSpec`, `Struct`) are read, never changed, by whoever holds them.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from google.protobuf.struct_pb2 import Struct

from traceapi.types.v1.dag_pb2 import DagSpec, ExecutionSpec, LateScopes, OutputSpec, SecretRef
from traceapi.types.v1.scope_pb2 import CursorType


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One fault of a document: where it is, what is wrong, what would be right."""

    line: int  # from 1; 0 where the document was given as a message
    column: int  # from 1; 0 where the document was given as a message
    path: str  # such as `jobs.ranges.config.size`
    message: str
    remedy: str
    file_name: str = ""
    owned: bool = False  # only for what another DAG owns

    def __str__(self) -> str:
        place = ":".join([self.file_name or "document", *([str(self.line), str(self.column)] if self.line else [])])
        return ": ".join(part for part in (place, self.path, f"{self.message}; {self.remedy}") if part)


@dataclass(frozen=True, slots=True)
class LocalPath:
    """A path relative to the document whose content has to travel as a bundle."""

    path: str  # as it is written
    job: str
    file: bool  # a single file; otherwise a folder
    # Where it stands, which says nothing of what it is: from 1, or 0 where the document was given as a message.
    line: int = field(default=0, compare=False)
    column: int = field(default=0, compare=False)
    document_path: str = field(default="", compare=False)  # such as `jobs.checked.code.bundle`


@dataclass(frozen=True, slots=True)
class KnownDataset:
    """A dataset that exists in the installation, as its owner's active version declares it.

    `spec.schema` holds the declared columns or, where nothing was declared, those that the first commit froze, and
    `spec.column_order` their order, where one is recorded.
    `dependencies` are the datasets that its producer reads: for a virtual dataset those that its SQL names.
    `fingerprint` is that of the version now served (32 bytes); it goes into the fingerprints of its readers.
    `version_id` is that version, a uuid.
    """

    dataset_id: str
    dag: str
    spec: OutputSpec
    virtual_sql: str = ""
    dependencies: tuple[str, ...] = ()
    fingerprint: bytes = b""
    version_id: str = ""


class KnownDatasets(Mapping[str, KnownDataset]):
    """The installation's datasets by id. Ids are unique under casefold, so `spelled` finds another spelling of one."""

    def __init__(self, datasets: Iterable[KnownDataset] = ()) -> None:
        self._datasets = {dataset.dataset_id: dataset for dataset in datasets}
        self._folded = {dataset_id.casefold(): dataset_id for dataset_id in self._datasets}

    def __getitem__(self, dataset_id: str) -> KnownDataset:
        return self._datasets[dataset_id]

    def __iter__(self) -> Iterator[str]:
        return iter(self._datasets)

    def __len__(self) -> int:
        return len(self._datasets)

    def spelled(self, dataset_id: str) -> str | None:
        """The known id that equals this one but for upper and lower case, or None."""
        return self._folded.get(dataset_id.casefold())


class JobKind(StrEnum):
    SOURCE = "source"
    OPERATOR = "operator"
    VIRTUAL = "virtual"


@dataclass(frozen=True, slots=True)
class ResolvedInput:
    """A dataset that a job reads, directly or (indirect) only because a virtual dataset of its inputs reads it."""

    dataset_id: str
    trigger: bool
    wait: bool
    lookback: int
    indirect: bool
    spec: OutputSpec  # the effective declaration of the dataset; schema empty while unknown
    virtual_sql: str  # of a virtual dataset; empty otherwise


@dataclass(frozen=True, slots=True)
class ResolvedOutput:
    """A dataset that a job produces, with storage, cursor, update and writers filled in.

    `spec.schema` is the declared one, or what binding the SQL gave; empty where only the first commit can tell.
    `declared_schema` tells the two apart: only what a person declared counts in the fingerprint.
    """

    dataset_id: str
    spec: OutputSpec
    declared_schema: bool


@dataclass(frozen=True, slots=True)
class ResolvedJob:
    """A job with every default filled in."""

    name: str
    kind: JobKind
    operator: str  # `replay`, `aggregator`, `splitter`, `sql`, `noop`, `python`; empty for a virtual node
    config: Struct
    inputs: tuple[ResolvedInput, ...]  # by dataset_id, indirect ones last; for a virtual node what its SQL names
    outputs: tuple[ResolvedOutput, ...]  # by dataset_id
    execution: ExecutionSpec  # unset in it: max_concurrency and memory_bytes for no limit, timeout for sources
    ordered: bool
    late_scopes: LateScopes.ValueType  # unspecified where it is not ordered
    runtime: str
    entrypoint: str  # of a `python` operator; empty otherwise
    code_digest: str  # where the document states it; empty otherwise
    trigger_cursor_type: CursorType.ValueType  # unspecified for sources and virtual nodes
    local_paths: tuple[LocalPath, ...]
    secrets: Mapping[str, SecretRef]
    virtual_sql: str = ""  # empty but for a virtual node
    canonical_sql: str = field(default="", compare=False)  # of its SQL, of whatever kind of job; parsed but once

    @property
    def triggers(self) -> tuple[ResolvedInput, ...]:
        return tuple(item for item in self.inputs if item.trigger)


@dataclass(frozen=True, slots=True)
class ResolvedDag:
    """A whole DAG without problems, its jobs in topological order: producers before their readers, else by name."""

    dag: str
    description: str
    spec: DagSpec
    jobs: tuple[ResolvedJob, ...]

    @property
    def local_paths(self) -> tuple[LocalPath, ...]:
        return tuple(path for job in self.jobs for path in job.local_paths)


@dataclass(frozen=True, slots=True)
class Reading:
    """The answer of `read_document` and `read_spec`. `resolved` is set exactly when there are no problems."""

    problems: tuple[Problem, ...]  # in the order of the document
    spec: DagSpec | None  # what could be read, defaults left as written; None where nothing could
    resolved: ResolvedDag | None
    local_paths: tuple[LocalPath, ...] = field(default=())
    more_problems: bool = False  # there are as many as are looked for, so that more may be found later
