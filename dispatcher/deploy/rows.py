"""The rows that a deploy writes, as values: a class for each table, whose fields are the statement's arrays."""

from dataclasses import dataclass
from datetime import timedelta

from psycopg.types.json import Jsonb


@dataclass(frozen=True, slots=True)
class JobVersionRow:
    """A job version. `fingerprint` is its key among the versions of the job."""

    job_version_id: str
    dag: str
    job: str
    kind: str
    operator: str
    ordered: bool
    late_scopes: str
    fingerprint: bytes
    canon_version: int


@dataclass(frozen=True, slots=True)
class RunStateRow:
    """Whether tasks of a job version may run. Releases and claims ask the active DAG version first."""

    job_version_id: str
    actor: str


@dataclass(frozen=True, slots=True)
class DatasetVersionRow:
    """A dataset version. `spec` is a serialized OutputSpec."""

    dataset_version_id: str
    dataset_id: str
    fingerprint: bytes
    spec: bytes
    virtual_sql: str | None
    cursor_type: int
    stored: bool
    schema_digest: bytes | None
    schema: Jsonb | None
    column_order: Jsonb | None


@dataclass(frozen=True, slots=True)
class HeadRow:
    """The publication number of a dataset version, from 0."""

    dataset_version_id: str


@dataclass(frozen=True, slots=True)
class JobOutputRow:
    """Which job version produces which dataset version."""

    job_version_id: str
    dataset_version_id: str


@dataclass(frozen=True, slots=True)
class DependencyRow:
    """What a virtual dataset version is made of."""

    dataset_version_id: str
    dependency_id: str


@dataclass(frozen=True, slots=True)
class ServedRow:
    """What a DAG version serves."""

    dag_version_id: str
    dataset_id: str
    dataset_version_id: str


@dataclass(frozen=True, slots=True)
class SettingsRow:
    """How a DAG version runs a job. `details` is a serialized JobDetails."""

    dag_version_id: str
    job_version_id: str
    details: bytes
    max_attempts: int
    max_lost_leases: int
    timeout: timedelta | None
    max_concurrency: int | None
    queue: str
    retry_backoff: timedelta
    max_retry_backoff: timedelta
    max_run_tasks: int


@dataclass(frozen=True, slots=True)
class BindingRow:
    """Which version of a dataset a job version reads."""

    dag_version_id: str
    job_version_id: str
    dataset_id: str
    dataset_version_id: str
    trigger: bool
    wait: bool
    lookback: int
    indirect: bool


@dataclass(frozen=True, slots=True)
class DatasetRow:
    """Who owns a dataset."""

    dataset_id: str
    folded_id: str
    dag: str


Row = (
    JobVersionRow
    | RunStateRow
    | DatasetVersionRow
    | HeadRow
    | JobOutputRow
    | DependencyRow
    | ServedRow
    | SettingsRow
    | BindingRow
    | DatasetRow
)
