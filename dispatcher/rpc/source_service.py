"""SourceService: re-runs of a job by scope.

Further runs of sources, and external events, have their contract, and answer that it is not served yet.
"""

import dataclasses

import grpc

from dispatcher.audit.entries import Action
from dispatcher.db.pool import Pool, transaction
from dispatcher.db.rows import Connection
from dispatcher.deploy import rerun_rows
from dispatcher.deploy.reruns import backfill, count_backfill
from dispatcher.rpc.faults import translated
from dispatcher.rpc.naming import require_names
from dispatcher.rpc.refusals import Asked, refusals_on_record
from dispatcher.rpc.reruns import jobs, readers, rerun_request
from dispatcher.wakeups.release import Releaser
from kernel.errors import TraceError
from kernel.scopes import cursor_type_of, scope_key
from traceapi.control.v1 import source_service_pb2 as pb
from traceapi.control.v1.source_service_pb2_grpc import SourceServiceServicer
from traceapi.types.v1.errors_pb2 import ErrorReason
from traceapi.types.v1.scope_pb2 import CursorType, Scope

Context = grpc.aio.ServicerContext[object, object]


class SourceService(SourceServiceServicer):
    """One for each dispatcher; holds no state but what it was given."""

    def __init__(self, pool: Pool, releaser: Releaser) -> None:
        self._pool = pool
        self._releaser = releaser

    async def TriggerSource(self, request: pb.TriggerSourceRequest, context: Context) -> pb.TriggerSourceResponse:
        raise TraceError(
            ErrorReason.ERROR_REASON_NOT_IMPLEMENTED,
            "a source runs once, from its deployment on; changed in the document and deployed, it runs anew",
        )

    async def EmitExternalEvents(
        self, request: pb.EmitExternalEventsRequest, context: Context
    ) -> pb.EmitExternalEventsResponse:
        raise TraceError(
            ErrorReason.ERROR_REASON_NOT_IMPLEMENTED, "external sources come with a later release; `replay` reads files"
        )

    async def BackfillJob(self, request: pb.BackfillJobRequest, context: Context) -> pb.BackfillJobResponse:
        if request.dry_run:
            return await self._count(request)
        key = scope_key(Scope(range=request.range))
        async with refusals_on_record(self._pool, Asked(Action.BACKFILL, request.dag)):
            with translated():
                async with transaction(self._pool) as connection:
                    job = await _named_job(connection, request)
                    bounds = rerun_rows.Bounds(job.job_version_id, key.first, key.last)
                    made = await backfill(connection, job, bounds, rerun_request(request, Action.BACKFILL))
        self._releaser.signal()
        return pb.BackfillJobResponse(**dataclasses.asdict(made), dag=job.dag)

    async def _count(self, request: pb.BackfillJobRequest) -> pb.BackfillJobResponse:
        key = scope_key(Scope(range=request.range))
        with translated():
            async with transaction(self._pool) as connection:
                job = await _named_job(connection, request)
                counted = await count_backfill(
                    connection, job, rerun_rows.Bounds(job.job_version_id, key.first, key.last)
                )
        return pb.BackfillJobResponse(
            task_count=counted.task_count, readers=readers(counted.readers), dag=job.dag, jobs=jobs(counted.jobs)
        )


async def _named_job(connection: Connection, request: pb.BackfillJobRequest) -> rerun_rows.NamedJob:
    """Raises DAG_NOT_FOUND, JOB_NOT_FOUND, NAME_AMBIGUOUS, RERUN_REFUSED, SCOPE_MISMATCH."""
    await require_names(connection, request.dag, request.job)
    found = await rerun_rows.jobs_called(connection, request.job, request.dag or None)
    if not found:
        message = (
            f"{request.job} is in no active version of {request.dag or 'any DAG'}: only what is active can be run again"
        )
        raise TraceError(ErrorReason.ERROR_REASON_RERUN_REFUSED, message)
    if len(found) > 1:
        dags = ", ".join(job.dag for job in found)
        raise TraceError(ErrorReason.ERROR_REASON_NAME_AMBIGUOUS, f"{request.job} is a job of {dags}: name the DAG")
    (job,) = found
    stated = cursor_type_of(Scope(range=request.range))
    for trigger in await rerun_rows.trigger_cursors(connection, job.job_version_id):
        if trigger.cursor_type != stated:
            raise TraceError(
                ErrorReason.ERROR_REASON_SCOPE_MISMATCH,
                _other_type(job, trigger, stated),
                metadata={"dataset_id": trigger.dataset_id},
            )
    return job


def _other_type(job: rerun_rows.NamedJob, trigger: rerun_rows.TriggerCursor, stated: int) -> str:
    if trigger.cursor_type == CursorType.CURSOR_TYPE_UNSPECIFIED:
        what = "has partition keys and no cursors: choose tasks instead, by tracectl task rerun"
    else:
        what = (
            f"has cursors of type {_type_name(trigger.cursor_type)}, and these bounds are of type {_type_name(stated)}"
        )
    return f"{trigger.dataset_id}, which triggers {job.job}, {what}"


def _type_name(cursor_type: int) -> str:
    return CursorType.Name(CursorType.ValueType(cursor_type)).removeprefix("CURSOR_TYPE_").lower()
