"""Deployments as people see them: a DAG version with its jobs and their tasks, and how far a build is."""

from collections.abc import Mapping, Sequence

from dispatcher.db.rows import Connection
from dispatcher.deploy import barrier, cutover, progress, store
from dispatcher.deploy.progress import StagedJobRow
from dispatcher.deploy.readiness import lack
from dispatcher.deploy.store import VersionRow
from dispatcher.rpc import convert
from dispatcher.tasks import listing
from dispatcher.tasks.state import FINAL
from traceapi.control.v1 import dag_service_pb2 as pb
from traceapi.control.v1.deployment_pb2 import BuildProgress, DeployedJob, Deployment, DeploymentState, TaskCount
from traceapi.types.v1.task_pb2 import RunState

Counts = Mapping[str, Mapping[str, int]]
"""Tasks by job version and state."""


async def message(connection: Connection, version: VersionRow) -> Deployment:
    """One version, with its tasks."""
    return (await messages(connection, [version]))[0]


async def switched(connection: Connection, version: VersionRow) -> Deployment:
    """One version, without its tasks: who switches a million of them does not wait until they are counted."""
    return await _message(connection, version, {})


async def messages(connection: Connection, versions: Sequence[VersionRow]) -> list[Deployment]:
    """Versions of one DAG; their tasks are counted once."""
    counts = await _counts(connection, versions[0].dag) if versions else {}
    return [await _message(connection, version, counts) for version in versions]


async def watched(connection: Connection, deployment_id: str) -> pb.WatchDeploymentResponse:
    """A version now, and what it waits for. Raises DEPLOYMENT_NOT_FOUND.

    Tasks are counted last: of what is settled every task is counted as it ended.
    """
    version = await cutover.deployed(connection, deployment_id)
    response = pb.WatchDeploymentResponse()
    jobs: Sequence[StagedJobRow] = ()
    if version.being_built:
        jobs = await progress.staged_jobs(connection, deployment_id)
        watermarks = await progress.staged_watermarks(connection, deployment_id)
        waits = await barrier.get(connection, deployment_id) if version.state == "building" else None
        response.waiting_for = lack(jobs, watermarks, waits).words()
    else:
        response.settled = version.state != "active" or not await store.unfinished(connection, deployment_id)
        response.caught_up = response.settled or await store.goes_on_level(connection, deployment_id)
    counts = await _counts(connection, version.dag)
    response.progress.extend(_progress(job, counts.get(job.job_version_id, {})) for job in jobs)
    response.deployment.CopyFrom(await _message(connection, version, counts))
    response.source_event_count = await store.source_events(connection, version.dag)
    return response


async def _counts(connection: Connection, dag: str) -> Counts:
    counts: dict[str, dict[str, int]] = {}
    for row in await listing.count_tasks(connection, dag):
        counts.setdefault(row.job_version_id, {})[row.state] = row.count
    return counts


async def _message(connection: Connection, version: VersionRow, counts: Counts) -> Deployment:
    return Deployment(
        deployment_id=version.dag_version_id,
        dag=version.dag,
        version=version.version,
        state=DeploymentState.Value(f"DEPLOYMENT_STATE_{version.state.upper()}"),
        deploy_number=version.deploy_number,
        actor=version.actor,
        created_time=convert.timestamp(version.created_at),
        active_time=convert.timestamp(version.active_at),
        jobs=[
            DeployedJob(
                job=job.job,
                job_version_id="" if job.kind == "virtual" else job.job_version_id,
                run_state=RunState.Value(f"RUN_STATE_{job.run_state.upper()}"),
                paused=job.paused,
                task_counts=[
                    TaskCount(state=convert.task_state(state), count=count)
                    for state, count in counts.get(job.job_version_id, {}).items()
                ],
            )
            for job in await store.deployed_jobs(connection, version.dag_version_id)
        ],
    )


def _progress(job: StagedJobRow, counts: Mapping[str, int]) -> BuildProgress:
    return BuildProgress(
        job=job.job,
        done_count=sum(count for state, count in counts.items() if state in FINAL),
        task_count=sum(counts.values()),
        replaying=job.replaying,
        dead_task_id=job.dead_task_id or "",
    )
