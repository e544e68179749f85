"""JobDetails: a job version as workers need it."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from dispatcher.dag.model import JobKind, ResolvedDag, ResolvedInput, ResolvedJob
from traceapi.types.v1.job_pb2 import JobDetails, JobInput, JobOutput

if TYPE_CHECKING:
    from dispatcher.deploy.first_version import Deployable

MAX_ROWS = 4_500
"""Rows of one emit, under the limit of 5,000 a transaction, with room for what comes beside events."""
EXPECTED_CONSUMERS = 3
"""Consumers that an emit's size allows for even where there are fewer: they may come later."""
MAX_EVENTS = 1_000


def job_details(
    deployable: "Deployable", job: ResolvedJob, job_version_id: str, versions: Mapping[str, str]
) -> JobDetails:
    """`versions` by dataset."""
    details = JobDetails(
        job_version_id=job_version_id,
        dag=deployable.dag.dag,
        job=job.name,
        source=job.kind is JobKind.SOURCE,
        operator=job.operator,
        config=job.config,
        runtime=job.runtime,
        entrypoint=job.entrypoint,
        bundles={path.path: deployable.bundles[path.path] for path in job.local_paths},
        inputs=[_input(item, versions) for item in job.inputs],
        outputs=[
            JobOutput(dataset_id=output.dataset_id, dataset_version_id=versions[output.dataset_id], spec=output.spec)
            for output in job.outputs
        ],
        ordered=job.ordered,
        max_events_per_emit=_max_events(deployable.dag, job),
        secrets=job.secrets,
        memory_bytes=job.execution.memory_bytes,
        trigger_cursor_type=job.trigger_cursor_type,
    )
    if job.execution.HasField("timeout"):
        details.timeout.CopyFrom(job.execution.timeout)
    return details


def _input(item: ResolvedInput, versions: Mapping[str, str]) -> JobInput:
    message = JobInput(
        dataset_id=item.dataset_id,
        dataset_version_id="" if item.virtual_sql else versions[item.dataset_id],
        trigger=item.trigger,
        wait=item.wait,
        lookback=item.lookback,
        storage=item.spec.storage,
        schema=item.spec.schema,
        virtual_sql=item.virtual_sql,
        indirect=item.indirect,
    )
    if item.spec.HasField("cursor"):
        message.cursor.CopyFrom(item.spec.cursor)
    return message


def _max_events(dag: ResolvedDag, job: ResolvedJob) -> int:
    """So that events with their consumers' tasks fit one transaction."""
    produced = {output.dataset_id for output in job.outputs}
    consumers = max(
        (
            sum(item.dataset_id == dataset_id for other in dag.jobs for item in other.triggers)
            for dataset_id in produced
        ),
        default=0,
    )
    return min(MAX_EVENTS, MAX_ROWS // (1 + max(consumers, EXPECTED_CONSUMERS)))
