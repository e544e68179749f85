"""Documents as the active version has them, without a database: so that plans can be tested as values."""

from collections.abc import Mapping

from dispatcher.dag import KnownDatasets, read_spec
from dispatcher.deploy.comparison import BaseJob, BuiltJob, Job, Read, changes, differences
from dispatcher.deploy.deployable import Deployable
from tests.dispatcher.dag.documents import NOTHING_KNOWN, read
from traceapi.types.v1.dag_pb2 import DagSpec

BUNDLES = {"blocks.csv": "1" * 64, "./code": "2" * 64}


def deployable(
    document: str | DagSpec, bundles: Mapping[str, str] = BUNDLES, known: KnownDatasets = NOTHING_KNOWN
) -> Deployable:
    """A document without problems."""
    reading = read(document, known) if isinstance(document, str) else read_spec(document, known)
    assert reading.resolved is not None, [str(problem) for problem in reading.problems]
    spec = DagSpec()
    spec.CopyFrom(reading.resolved.spec)
    for job in spec.jobs.values():
        if job.HasField("code"):
            job.code.digest = bundles[job.code.bundle]
    return Deployable.of(reading.resolved, spec, known, {path.path: bundles[path.path] for path in reading.local_paths})


def base_of(active: Deployable) -> dict[str, BaseJob]:
    """The jobs of an active version. Versions are called after jobs and datasets: `checks@1`."""
    produced = {output.dataset_id for job in active.dag.jobs for output in job.outputs}
    return {
        job.name: BaseJob(
            job=job.name,
            job_version_id=f"{job.name}@1",
            kind=job.kind.value,
            key=active.version_keys[job.name],
            queue=job.execution.queue,
            max_concurrency=None,
            bundles={path.path: active.bundles[path.path] for path in job.local_paths},
            triggers=[
                Read(
                    item.dataset_id,
                    f"{item.dataset_id}@1" if item.dataset_id in produced else active.foreign[item.dataset_id],
                )
                for item in job.triggers
            ],
            outputs={output.dataset_id: f"{output.dataset_id}@1" for output in job.outputs},
        )
        for job in active.dag.jobs
    }


def built(of: Deployable, *jobs: str, open_tasks: int = 0) -> dict[str, BuiltJob]:
    """Versions of these jobs that were built before: `checks@0`."""
    return {
        job.name: BuiltJob(
            job.name,
            f"{job.name}@0",
            {output.dataset_id: f"{output.dataset_id}@0" for output in job.outputs},
            open_tasks,
        )
        for job in of.dag.jobs
        if job.name in jobs
    }


def compared(before: Deployable, after: Deployable, reusing: Mapping[str, BuiltJob] | None = None) -> dict[str, Job]:
    """What becomes of each job, in order."""
    base = base_of(before)
    found = differences(after, DagSpec.FromString(before.spec), base)
    return {job.job: job for job in changes(after, base, reusing or {}, found)}
