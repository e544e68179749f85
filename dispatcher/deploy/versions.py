"""Job versions and what they write, as rows: the part of a DAG version that others may share with it. Pure.

A job version is there whole or not at all: with its run state, its outputs, and the dataset versions and heads that
they need. Whoever finds one under its key (`version_keys`) takes it up as it is, whether it runs already or was left
behind by a deploy that went no further.

Jobs that write a dataset together are taken in the order of their names, by every deploy: the first one makes the
dataset's version, the others find it with those before them.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from psycopg.types.json import Jsonb

from dispatcher.dag.fingerprint import CANON_VERSION
from dispatcher.dag.model import JobKind, ResolvedJob, ResolvedOutput
from dispatcher.deploy.deployable import Deployable
from dispatcher.deploy.rows import (
    DatasetVersionRow,
    DependencyRow,
    HeadRow,
    JobOutputRow,
    JobVersionRow,
    Row,
    RunStateRow,
)
from kernel.column_types import ordered_columns, schema_digest
from traceapi.types.v1.dag_pb2 import LateScopes, Storage


@dataclass(frozen=True, slots=True)
class StoredJob:
    """A job version that is there."""

    job_version_id: str
    outputs: Mapping[str, str]  # dataset -> dataset version
    column_orders: Mapping[str, Sequence[str]] = field(default_factory=dict)  # by dataset, where one is recorded


@dataclass(frozen=True, slots=True)
class Identities:
    """The versions that a DAG version is made of."""

    jobs: Mapping[str, str] = field(default_factory=dict)  # job -> job version
    datasets: Mapping[str, str] = field(default_factory=dict)  # dataset -> dataset version
    column_orders: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """By dataset, of versions that were there: they keep the order that they were made with. Empty for none."""


def version_rows(
    deployable: Deployable,
    jobs: Sequence[ResolvedJob],
    stored: Mapping[str, StoredJob],
    before: Identities,
    actor: str,
    new_id: Callable[[], str],
) -> tuple[list[Row], Identities]:
    """What is missing of `jobs`, which are in the order of their names, and the identities after them.

    `stored` has those of `jobs` that are there, by name; `before` has all jobs that come earlier.
    """
    job_ids, dataset_ids, orders = dict(before.jobs), dict(before.datasets), dict(before.column_orders)
    rows: list[Row] = []
    for job in jobs:
        if job.name in stored:
            job_ids[job.name] = stored[job.name].job_version_id
            dataset_ids |= stored[job.name].outputs
            orders |= {
                dataset_id: stored[job.name].column_orders.get(dataset_id, ())
                for dataset_id in stored[job.name].outputs
            }
            continue
        job_version_id = job_ids[job.name] = new_id()
        rows += [_job_version(deployable, job, job_version_id), RunStateRow(job_version_id, actor)]
        for output in job.outputs:
            if output.dataset_id not in dataset_ids:
                dataset_ids[output.dataset_id] = new_id()
                rows += _dataset_version(deployable, job, output, dataset_ids[output.dataset_id])
            rows.append(JobOutputRow(job_version_id, dataset_ids[output.dataset_id]))
    return rows, Identities(job_ids, dataset_ids, orders)


def _job_version(deployable: Deployable, job: ResolvedJob, job_version_id: str) -> JobVersionRow:
    return JobVersionRow(
        job_version_id=job_version_id,
        dag=deployable.name,
        job=job.name,
        kind=job.kind.value,
        operator=job.operator,
        ordered=job.ordered,
        late_scopes="skip" if job.late_scopes == LateScopes.LATE_SCOPES_SKIP else "refuse",
        fingerprint=deployable.version_keys[job.name],
        canon_version=CANON_VERSION,
    )


def _dataset_version(
    deployable: Deployable, job: ResolvedJob, output: ResolvedOutput, dataset_version_id: str
) -> Iterator[Row]:
    spec, schema = output.spec, dict(output.spec.schema)
    yield DatasetVersionRow(
        dataset_version_id=dataset_version_id,
        dataset_id=output.dataset_id,
        fingerprint=deployable.dataset_fingerprints[output.dataset_id],
        spec=spec.SerializeToString(deterministic=True),
        virtual_sql=job.virtual_sql or None,
        cursor_type=int(spec.cursor.type),
        stored=job.kind is not JobKind.VIRTUAL and spec.storage != Storage.STORAGE_NONE,
        schema_digest=schema_digest(schema) if schema and output.declared_schema else None,
        schema=Jsonb(schema) if schema else None,
        column_order=Jsonb(list(ordered_columns(schema, spec.column_order))) if schema else None,
    )
    yield HeadRow(dataset_version_id)
    if job.kind is JobKind.VIRTUAL:
        for item in job.inputs:
            if not item.indirect:
                yield DependencyRow(dataset_version_id, item.dataset_id)
