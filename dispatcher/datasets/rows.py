"""What the database answers about datasets, manifests and pins, as values."""

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class KnownRow:
    """A dataset with the declaration that is served. `spec` is a serialized OutputSpec."""

    dataset_id: str
    dag: str
    dataset_version_id: str
    spec: bytes
    schema: dict[str, str] | None
    column_order: list[str] | None
    virtual_sql: str
    fingerprint: bytes
    dependencies: list[str]


@dataclass(frozen=True, slots=True)
class DatasetRow:
    """A dataset with its served version."""

    dataset_id: str
    dag: str
    dataset_version_id: str
    spec: bytes
    virtual_sql: str
    cursor_type: int
    schema: dict[str, str] | None
    column_order: list[str] | None
    created_at: datetime
    number: int
    watermark: bytes | None
    producer_jobs: list[str]


@dataclass(frozen=True, slots=True)
class VersionRow:
    """A dataset version."""

    dataset_version_id: str
    dataset_id: str
    cursor_type: int
    schema: dict[str, str] | None
    column_order: list[str] | None
    created_at: datetime
    number: int
    watermark: bytes | None


@dataclass(frozen=True, slots=True)
class Totals:
    """What a dataset version holds."""

    dataset_version_id: str
    event_count: int
    artifact_count: int
    row_count: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class PinnedRow:
    """A dataset at a version and number."""

    dataset_id: str
    dag: str
    dataset_version_id: str
    spec: bytes
    virtual_sql: str
    cursor_type: int
    schema: dict[str, str] | None
    column_order: list[str] | None
    number: int
    watermark: bytes | None
    deploy_number: int


@dataclass(frozen=True, slots=True)
class ArtifactRow:
    """A file of a manifest."""

    artifact_id: str
    dataset_id: str
    dataset_version_id: str
    cursor_type: int
    object_key: str
    producer_task_id: str
    scope_kind: int
    scope_first: bytes
    scope_last: bytes
    revision: int
    row_count: int
    size_bytes: int
    sha256: bytes
    schema_digest: bytes
    publication_number: int
    accepted_at: datetime


@dataclass(frozen=True, slots=True)
class ScopeRow:
    """An event of a manifest."""

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
class TaskRead:
    """How a claimed task reads one of its inputs."""

    task_id: str
    dataset_id: str
    dataset_version_id: str
    lookback: int
    cursor_type: int
    stored: bool
    scope_kind: int | None
    scope_first: bytes | None
    scope_last: bytes | None
    number: int | None
    schema: dict[str, str] | None
    column_order: list[str] | None


@dataclass(frozen=True, slots=True)
class LineageRow:
    """A job makes one dataset from another."""

    from_dataset_id: str
    to_dataset_id: str
    dag: str
    job: str
    outdated: bool
    passed_scope_count: int


@dataclass(frozen=True, slots=True)
class Bounds:
    """Keys of a dataset's scopes, both inclusive; as it is made, everything."""

    lower: bytes = b""
    upper: bytes = b"\xff" * 9  # beyond every key: those of numbers have 8 bytes, those of strings no 0xff
