"""What a DAG version is made of, as rows: its own part, written before anybody looks at it, and what it owns. Pure."""

from collections.abc import Iterator

from dispatcher.dag.model import ResolvedJob
from dispatcher.deploy.deployable import Deployable
from dispatcher.deploy.details import job_details
from dispatcher.deploy.rows import (
    BindingRow,
    DatasetRow,
    Row,
    ServedRow,
    SettingsRow,
)
from dispatcher.deploy.versions import Identities
from dispatcher.tasks.retries import MAX_LOST_LEASES


def composition_rows(deployable: Deployable, dag_version_id: str, identities: Identities) -> Iterator[Row]:
    """What the DAG version serves, how its jobs run, and which versions they read; one after another."""
    for dataset_id in sorted(deployable.dataset_fingerprints):
        yield ServedRow(dag_version_id, dataset_id, identities.datasets[dataset_id])
    reads = {**deployable.foreign, **identities.datasets}
    for job in deployable.dag.jobs:
        job_version_id = identities.jobs[job.name]
        details = job_details(deployable, job, job_version_id, reads, identities.column_orders)
        yield _settings(job, dag_version_id, job_version_id, details.SerializeToString(deterministic=True))
        for item in job.inputs:
            yield BindingRow(
                dag_version_id=dag_version_id,
                job_version_id=job_version_id,
                dataset_id=item.dataset_id,
                dataset_version_id=reads[item.dataset_id],
                trigger=item.trigger,
                wait=item.wait,
                lookback=item.lookback,
                indirect=item.indirect,
            )


def dataset_rows(deployable: Deployable) -> Iterator[Row]:
    """What the DAG owns once the version is staged."""
    for dataset_id in sorted(deployable.dataset_fingerprints, key=lambda name: (name.casefold(), name)):
        yield DatasetRow(dataset_id, dataset_id.casefold(), deployable.name)


def _settings(job: ResolvedJob, dag_version_id: str, job_version_id: str, details: bytes) -> SettingsRow:
    execution = job.execution
    return SettingsRow(
        dag_version_id=dag_version_id,
        job_version_id=job_version_id,
        details=details,
        max_attempts=execution.max_attempts,
        max_lost_leases=MAX_LOST_LEASES,
        timeout=execution.timeout.ToTimedelta() if execution.HasField("timeout") else None,
        max_concurrency=execution.max_concurrency if execution.HasField("max_concurrency") else None,
        queue=execution.queue or "default",
        retry_backoff=execution.retry_backoff.ToTimedelta(),
        max_retry_backoff=execution.max_retry_backoff.ToTimedelta(),
        max_run_tasks=execution.max_run_tasks or 500,
    )
