"""DagService: the life of DAGs. Parses, calls the slices, converts."""

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator, Callable, Coroutine

import grpc

from dispatcher.audit import store as audit
from dispatcher.audit.entries import Action, Entry
from dispatcher.datasets import store as datasets_store
from dispatcher.datasets.names import no_dag, no_jobs
from dispatcher.db.pool import Pool, transaction
from dispatcher.db.rows import Connection
from dispatcher.deploy import progress, store
from dispatcher.deploy.cutover import abort
from dispatcher.deploy.deploying import deploy
from dispatcher.deploy.levelling import cut_over_level
from dispatcher.deploy.readiness import Waiver
from dispatcher.deploy.removing import remove
from dispatcher.deploy.rollback import Rollback, roll_back
from dispatcher.deploy.store import DagRow, VersionRow
from dispatcher.rpc import convert, deployments, documents
from dispatcher.rpc.changes import list_dag_changes
from dispatcher.rpc.faults import translated
from dispatcher.rpc.paging import number_token, page_size, task_page_token
from dispatcher.rpc.planning import plan_dag
from dispatcher.rpc.refusals import Asked, refusals_on_record
from dispatcher.rpc.watching import Watches
from dispatcher.tasks import listing
from dispatcher.tasks.rows import (
    CountRow,
)
from kernel import bundles
from kernel.artifacts.store import ArtifactStore
from kernel.errors import TraceError
from kernel.ids import IdSource
from kernel.servers import current_actor
from traceapi.control.v1 import change_pb2
from traceapi.control.v1 import dag_service_pb2 as pb
from traceapi.control.v1.dag_service_pb2_grpc import DagServiceServicer
from traceapi.control.v1.deployment_pb2 import Deployment, TaskCount
from traceapi.types.v1.dag_pb2 import DagSpec
from traceapi.types.v1.errors_pb2 import ErrorReason

Context = grpc.aio.ServicerContext[object, object]

MAX_BUNDLE_BYTES = 256 * 1024 * 1024


class DagService(DagServiceServicer):
    """One for each dispatcher; holds no state but what it was given, and what those who watch have in common."""

    def __init__(self, pool: Pool, artifacts: ArtifactStore, switched: Callable[[], None], new_id: IdSource) -> None:
        """`switched` is to be called when other tasks may run than before."""
        self._pool = pool
        self._artifacts = artifacts
        self._switched = switched
        self._new_id = new_id
        self._watches = Watches(self._look)

    async def ValidateDag(self, request: pb.ValidateDagRequest, context: Context) -> pb.ValidateDagResponse:
        reading, _ = await documents.read(self._pool, request)
        return pb.ValidateDagResponse(
            problems=[
                pb.DagProblem(
                    file_name=problem.file_name,
                    line=problem.line,
                    column=problem.column,
                    path=problem.path,
                    message=problem.message,
                    remedy=problem.remedy,
                )
                for problem in reading.problems
            ],
            spec=reading.spec,
            local_paths=[
                pb.LocalPath(
                    path=path.path,
                    job=path.job,
                    file=path.file,
                    line=path.line,
                    column=path.column,
                    document_path=path.document_path,
                )
                for path in reading.local_paths
            ],
            more_problems=reading.more_problems,
        )

    async def UploadBundle(
        self, request_iterator: AsyncIterator[pb.UploadBundleRequest], context: Context
    ) -> pb.UploadBundleResponse:
        stated = b""
        data = bytearray()
        async for request in request_iterator:
            if request.HasField("sha256") == bool(stated):
                raise TraceError(
                    ErrorReason.ERROR_REASON_INVALID_REQUEST,
                    "the first message states the digest, later ones carry data",
                )
            stated = stated or request.sha256
            data += request.data
            if len(data) > MAX_BUNDLE_BYTES:
                raise TraceError(
                    ErrorReason.ERROR_REASON_MESSAGE_TOO_LARGE, f"a bundle has at most {MAX_BUNDLE_BYTES} bytes"
                )
        if hashlib.sha256(data).digest() != stated:
            raise TraceError(
                ErrorReason.ERROR_REASON_BUNDLE_DIGEST_MISMATCH, "the bytes have another SHA-256 than stated"
            )
        digest = await asyncio.to_thread(bundles.check, bytes(data))
        with translated():
            async with transaction(self._pool) as connection:
                existed = bool(await datasets_store.known_bundles(connection, [digest]))
            if not existed:
                await asyncio.to_thread(self._artifacts.put_bytes, f"bundles/{digest}.tar", bytes(data))
                async with transaction(self._pool) as connection:
                    actor = str(current_actor())
                    await datasets_store.record_bundle(connection, digest, len(data), actor)
                    entry = Entry(Action.UPLOAD_BUNDLE, actor, digest, [], {"bytes": len(data)})
                    await audit.record(connection, entry)
        return pb.UploadBundleResponse(digest=digest, size_bytes=len(data), existed=existed)

    async def DeployDag(self, request: pb.DeployDagRequest, context: Context) -> pb.DeployDagResponse:
        async with refusals_on_record(self._pool, Asked(Action.DEPLOY)):
            call = await documents.deploy_call(self._pool, request)
        asked = Asked(Action.DEPLOY, call.deployable.name, plan_id=call.plan_id)
        async with refusals_on_record(self._pool, asked):
            with translated():
                deployed = await deploy(self._pool, call, self._new_id)
                async with transaction(self._pool) as connection:
                    deployment = await deployments.message(connection, deployed.version)
        self._switched()
        return pb.DeployDagResponse(deployment=deployment, unchanged=deployed.unchanged)

    async def WatchDeployment(
        self, request: pb.WatchDeploymentRequest, context: Context
    ) -> AsyncIterator[pb.WatchDeploymentResponse]:
        last = b""
        async with contextlib.aclosing(self._watches.looks(request.deployment_id.lower())) as looks:
            async for response in looks:
                present = response.SerializeToString(deterministic=True)
                if present != last:
                    yield response
                    last = present
                if response.settled:
                    return

    async def _look(self, deployment_id: str) -> pb.WatchDeploymentResponse:
        with translated():
            async with transaction(self._pool) as connection:
                return await deployments.watched(connection, deployment_id)

    async def CutOverDag(self, request: pb.CutOverDagRequest, context: Context) -> pb.CutOverDagResponse:
        deployment_id = request.deployment_id.lower()
        waiver = Waiver(watermarks=request.watermarks_may_go_back, cursors=request.cursors_may_differ)
        step = cut_over_level(self._pool, deployment_id, str(current_actor()), self._new_id(), waiver)
        version = await self._switch(step, Asked(Action.CUT_OVER, deployment_id=deployment_id))
        return pb.CutOverDagResponse(deployment=version)

    async def AbortDeployment(self, request: pb.AbortDeploymentRequest, context: Context) -> pb.AbortDeploymentResponse:
        deployment_id = request.deployment_id.lower()
        step = abort(self._pool, deployment_id, str(current_actor()))
        version = await self._switch(step, Asked(Action.ABORT, deployment_id=deployment_id))
        return pb.AbortDeploymentResponse(deployment=version)

    async def RollbackDag(self, request: pb.RollbackDagRequest, context: Context) -> pb.RollbackDagResponse:
        call = Rollback(request.dag, request.to_version or None, request.request_id.lower(), str(current_actor()))
        asked = Asked(Action.ROLL_BACK, request.dag, to_version=request.to_version)
        deployment = await self._switch(roll_back(self._pool, call), asked)
        with translated():
            async with transaction(self._pool) as connection:
                lag = await progress.owed_events(connection, deployment.deployment_id)
        return pb.RollbackDagResponse(deployment=deployment, lag_event_count=lag)

    async def _switch(self, step: Coroutine[None, None, VersionRow], asked: Asked) -> Deployment:
        """Makes the step, and lets what may go now go."""
        async with refusals_on_record(self._pool, asked):
            with translated():
                version = await step
                async with transaction(self._pool) as connection:
                    deployment = await deployments.switched(connection, version)
        self._switched()
        return deployment

    async def GetDag(self, request: pb.GetDagRequest, context: Context) -> pb.GetDagResponse:
        with translated():
            async with transaction(self._pool) as connection:
                version = await store.active_version(connection, request.dag)
                if version is None:
                    raise await no_dag(connection, request.dag)
                found = await store.list_dags(connection, dag=request.dag, after=None, limit=1)
                counts = await listing.count_tasks(connection, request.dag)
                deployment = await deployments.message(connection, version)
        return pb.GetDagResponse(
            summary=_summary(found[0], counts), spec=DagSpec.FromString(version.spec), deployment=deployment
        )

    async def ListDags(self, request: pb.ListDagsRequest, context: Context) -> pb.ListDagsResponse:
        limit = page_size(request.page_size)
        with translated():
            async with transaction(self._pool) as connection:
                found = await store.list_dags(connection, dag=None, after=request.page_token or None, limit=limit)
                counts = await listing.count_tasks(connection, None) if found else []
        return pb.ListDagsResponse(
            dags=[_summary(row, counts) for row in found],
            next_page_token=task_page_token([row.dag for row in found], limit),
        )

    async def ListDagHistory(self, request: pb.ListDagHistoryRequest, context: Context) -> pb.ListDagHistoryResponse:
        limit = page_size(request.page_size)
        with translated():
            async with transaction(self._pool) as connection:
                before = number_token(request.page_token)
                found = await store.list_versions(
                    connection, request.dag, before, limit, being_built=request.being_built
                )
                if not (found or before or await store.list_versions(connection, request.dag, None, 1)):
                    raise await no_dag(connection, request.dag)
                history = await deployments.messages(connection, found)
        token = str(found[-1].version) if len(found) == limit else ""
        return pb.ListDagHistoryResponse(deployments=history, next_page_token=token)

    async def ListDagChanges(
        self, request: change_pb2.ListDagChangesRequest, context: Context
    ) -> change_pb2.ListDagChangesResponse:
        return await list_dag_changes(self._pool, request)

    async def PauseDag(self, request: pb.PauseDagRequest, context: Context) -> pb.PauseDagResponse:
        paused = await self._change_pauses(Action.PAUSE, request.dag, list(request.jobs))
        self._switched()
        return pb.PauseDagResponse(paused_jobs=paused)

    async def ResumeDag(self, request: pb.ResumeDagRequest, context: Context) -> pb.ResumeDagResponse:
        paused = await self._change_pauses(Action.RESUME, request.dag, list(request.jobs))
        self._switched()
        return pb.ResumeDagResponse(paused_jobs=paused)

    async def PlanDag(self, request: pb.PlanDagRequest, context: Context) -> pb.PlanDagResponse:
        return await plan_dag(self._pool, request, self._new_id)

    async def RemoveDag(self, request: pb.RemoveDagRequest, context: Context) -> pb.RemoveDagResponse:
        actor, despite = str(current_actor()), request.despite_readers
        async with refusals_on_record(self._pool, Asked(Action.REMOVE, request.dag)):
            with translated():
                readers = await remove(self._pool, request.dag, actor, despite_readers=despite)
        return pb.RemoveDagResponse(reader_dags=readers)

    async def _change_pauses(self, action: Action, dag: str, jobs: list[str]) -> list[str]:
        """Pauses or resumes; answers the jobs that are paused then."""
        actor = str(current_actor())
        async with refusals_on_record(self._pool, Asked(action, dag)):
            with translated():
                async with transaction(self._pool) as connection:
                    known = await self._known_jobs(connection, dag)
                    if unknown := [job for job in jobs if job not in known]:
                        raise no_jobs(dag, unknown, sorted(known))
                    if action is Action.PAUSE:
                        await store.pause(connection, dag, jobs, actor)
                    else:
                        await store.resume(connection, dag, jobs)
                    await audit.record(connection, Entry(action, actor, dag, [dag], {"jobs": jobs}))
                    present = await self._known_jobs(connection, dag)
        return sorted(job for job, paused in present.items() if paused)

    async def _known_jobs(self, connection: Connection, dag: str) -> dict[str, bool]:
        """Jobs of the active version and of the one that is being built, and whether each is paused. Raises
        DAG_NOT_FOUND."""
        versions = [await store.active_version(connection, dag), await store.staged_version(connection, dag)]
        if not any(versions):
            raise await no_dag(connection, dag)
        return {
            job.job: job.paused
            for version in versions
            if version is not None
            for job in await store.deployed_jobs(connection, version.dag_version_id)
        }


def _summary(row: DagRow, counts: list[CountRow]) -> pb.DagSummary:
    by_state: dict[str, int] = {}
    for count in counts:
        if count.dag == row.dag:
            by_state[count.state] = by_state.get(count.state, 0) + count.count
    return pb.DagSummary(
        dag=row.dag,
        version=row.version,
        job_count=row.job_count,
        active_time=convert.timestamp(row.active_at),
        task_counts=[
            TaskCount(state=convert.task_state(state), count=count) for state, count in sorted(by_state.items())
        ],
        paused=row.paused,
    )
