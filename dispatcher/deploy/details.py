"""JobDetails: a job version as workers need it."""

from collections.abc import Mapping, Sequence

from dispatcher.dag.model import JobKind, ResolvedInput, ResolvedJob, ResolvedOutput
from dispatcher.deploy.deployable import Deployable
from traceapi.types.v1.job_pb2 import JobDetails, JobInput, JobOutput


def job_details(
    deployable: Deployable,
    job: ResolvedJob,
    job_version_id: str,
    versions: Mapping[str, str],
    column_orders: Mapping[str, Sequence[str]],
) -> JobDetails:
    """`versions` by dataset, and `column_orders` of those that were there: what a job reads looks as it did, whatever
    the document says now. What depends on who reads the outputs is filled in at each claim."""
    details = JobDetails(
        job_version_id=job_version_id,
        dag=deployable.name,
        job=job.name,
        source=job.kind is JobKind.SOURCE,
        operator=job.operator,
        config=job.config,
        runtime=job.runtime,
        entrypoint=job.entrypoint,
        bundles={path.path: deployable.bundles[path.path] for path in job.local_paths},
        inputs=[_input(item, versions, column_orders) for item in job.inputs],
        outputs=[_output(output, versions, column_orders) for output in job.outputs],
        ordered=job.ordered,
        secrets=job.secrets,
        memory_bytes=job.execution.memory_bytes,
        trigger_cursor_type=job.trigger_cursor_type,
    )
    if job.execution.HasField("timeout"):
        details.timeout.CopyFrom(job.execution.timeout)
    return details


def _output(
    output: ResolvedOutput, versions: Mapping[str, str], column_orders: Mapping[str, Sequence[str]]
) -> JobOutput:
    dataset_id = output.dataset_id
    message = JobOutput(dataset_id=dataset_id, dataset_version_id=versions[dataset_id], spec=output.spec)
    if dataset_id in column_orders:
        message.spec.column_order[:] = column_orders[dataset_id]
    return message


def _input(item: ResolvedInput, versions: Mapping[str, str], column_orders: Mapping[str, Sequence[str]]) -> JobInput:
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
        column_order=column_orders.get(item.dataset_id, item.spec.column_order),
    )
    if item.spec.HasField("cursor"):
        message.cursor.CopyFrom(item.spec.cursor)
    return message
