"""WorkerService: the life of tasks, for wrappers. Parses, calls the slices, converts."""

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta

import grpc

from dispatcher.datasets import store as datasets_store
from dispatcher.datasets.manifest import Manifest, Page, read_bounds
from dispatcher.datasets.rows import TaskRead
from dispatcher.db.batcher import Quarantined
from dispatcher.db.pipeline import pipelined
from dispatcher.db.pool import Pool, transaction
from dispatcher.events.values import MAX_ROWS
from dispatcher.rpc import convert
from dispatcher.rpc.claiming import claim_response, details, details_id
from dispatcher.rpc.faults import quarantined, translated
from dispatcher.rpc.settling import EmitAnswer, EndAnswer, Settling
from dispatcher.tasks import claim_rows, listing
from dispatcher.tasks import store as tasks_store
from dispatcher.tasks.claim import Claim, claim_tasks
from dispatcher.tasks.ending import Completion
from dispatcher.tasks.heartbeat import Beat, BeatResult, beat
from dispatcher.tasks.leases import Refusal
from dispatcher.wakeups.stream import StreamChannel, Watcher
from kernel.crash import crash
from kernel.errors import TraceError
from kernel.ids import IdSource
from traceapi.types.v1.artifact_pb2 import Artifact
from traceapi.types.v1.errors_pb2 import ErrorReason, ItemError
from traceapi.worker.v1 import worker_service_pb2 as pb
from traceapi.worker.v1.completion_pb2 import CompleteTaskResult
from traceapi.worker.v1.emit_pb2 import EmitResult
from traceapi.worker.v1.worker_service_pb2_grpc import WorkerServiceServicer

Context = grpc.aio.ServicerContext[object, object]

MAX_LEASE = timedelta(hours=1)
MAX_BEATS = MAX_ROWS // 2
"""Of one transaction: a beat writes a task, or of a run its stream and a task."""


class WorkerService(WorkerServiceServicer):
    """One for each dispatcher; holds no state but what it was given."""

    def __init__(self, pool: Pool, settling: Settling, channel: StreamChannel, new_id: IdSource) -> None:
        self._pool = pool
        self._settling = settling
        self._channel = channel
        self._new_id = new_id

    async def WatchWakeups(
        self, request_iterator: AsyncIterator[pb.WatchWakeupsRequest], context: Context
    ) -> AsyncIterator[pb.WatchWakeupsResponse]:
        first = await anext(request_iterator, None)
        if first is None or not first.HasField("start"):
            raise TraceError(ErrorReason.ERROR_REASON_INVALID_REQUEST, "the first message of a watch is its start")
        start = first.start
        with self._channel.watch(start.worker_id, start.queues, start.credits) as watcher:
            reader = asyncio.create_task(_take_credits(request_iterator, watcher))
            try:
                async for task_ids in watcher.batches():
                    yield pb.WatchWakeupsResponse(task_ids=task_ids)
            finally:
                reader.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await reader
        raise TraceError(ErrorReason.ERROR_REASON_UNAVAILABLE, "the stream has ended: open it again")

    async def FetchTasks(self, request: pb.FetchTasksRequest, context: Context) -> pb.FetchTasksResponse:
        with translated():
            async with transaction(self._pool) as connection:
                found = await listing.get_tasks(connection, request.task_ids)
        response = pb.FetchTasksResponse()
        for task_id in request.task_ids:
            result = response.results.add(task_id=task_id)
            row = found.get(task_id)
            if row is None:
                result.error.CopyFrom(_not_found(task_id))
            else:
                result.task.task.CopyFrom(convert.task(row))
                canceled = row.state == "canceled" or row.cancel_reason is not None
                result.task.canceled = canceled or row.fence is not None
        return response

    async def ClaimTasks(self, request: pb.ClaimTasksRequest, context: Context) -> pb.ClaimTasksResponse:
        lease = min(request.lease_duration.ToTimedelta(), MAX_LEASE)
        claim = Claim(
            request.request_id.lower(),  # as the database writes it
            request.worker_id,
            hashlib.sha256(request.lease_token).digest(),
            list(dict.fromkeys(request.task_ids)),
            lease,
            request.max_run_tasks,
        )
        with translated():
            async with self._pool.connection() as connection, pipelined(connection, planned_once=True):
                claimed = await claim_tasks(connection, claim)
                known = set(request.known_details_ids)
                unknown = [row for row in claimed.settings.values() if details_id(row) not in known]
                found = await claim_rows.job_details(connection, unknown)
                crash("claim.written")
        crash("claim.committed")
        return claim_response(request, claimed, [details(row, found[row.job_version_id]) for row in unknown])

    async def Heartbeat(self, request: pb.HeartbeatRequest, context: Context) -> pb.HeartbeatResponse:
        lease = min(request.lease_duration.ToTimedelta(), MAX_LEASE)
        beats = [
            Beat(
                convert.lease_ref(item.lease),
                convert.stream_ref(item),
                item.progress.SerializeToString() if item.HasField("progress") else None,
            )
            for item in request.items
        ]
        results: list[BeatResult] = []
        with translated():
            for start in range(0, len(beats), MAX_BEATS):
                async with transaction(self._pool) as connection:
                    results += await beat(connection, beats[start : start + MAX_BEATS], lease)
                    crash("heartbeat.written")
        crash("heartbeat.committed")
        return pb.HeartbeatResponse(results=[_heartbeat_result(result) for result in results])

    async def ResolveInputs(
        self, request: pb.ResolveInputsRequest, context: Context
    ) -> AsyncIterator[pb.ResolveInputsResponse]:
        wanted = [(item.lease.task_id, item.dataset_id) for item in request.items]
        with translated():
            async with transaction(self._pool) as connection:
                tasks = await tasks_store.read_tasks(connection, {task_id for task_id, _ in wanted})
                reads = await datasets_store.task_reads(connection, wanted)
            for index, item in enumerate(request.items):
                lease = convert.lease_ref(item.lease)
                task = tasks.get(lease.task_id)
                read = reads.get((lease.task_id, item.dataset_id))
                if task is None or task.attempt != lease.attempt or task.lease_token_digest != lease.token_digest:
                    yield _unresolved(index, ErrorReason.ERROR_REASON_STALE_LEASE, "the lease is not the current one")
                elif read is None or read.number is None:
                    message = f"{item.dataset_id} is no input of the job"
                    yield _unresolved(index, ErrorReason.ERROR_REASON_DATASET_NOT_READ, message)
                else:
                    manifest = Manifest(read.dataset_version_id, read.number, read_bounds(read), stored=read.stored)
                    async for page in manifest.pages(self._pool):
                        yield pb.ResolveInputsResponse(
                            item_index=index,
                            artifacts=_files(read, page),
                            events=[convert.event(row) for row in page.scopes],
                            last=page.last,
                        )

    async def EmitEvents(self, request: pb.EmitEventsRequest, context: Context) -> pb.EmitEventsResponse:
        with translated():
            settled = await self._settling.settle([convert.emit(item, self._new_id) for item in request.items], ())
        return pb.EmitEventsResponse(results=[_emit_result(answer) for answer in settled.emits])

    async def CompleteTasks(self, request: pb.CompleteTasksRequest, context: Context) -> pb.CompleteTasksResponse:
        ends = [convert.completion(item, request.worker_id) for item in request.items]
        with translated():
            settled = await self._settling.settle([], ends)
        return pb.CompleteTasksResponse(results=_end_results(ends, settled.ends))

    async def SettleTasks(self, request: pb.SettleTasksRequest, context: Context) -> pb.SettleTasksResponse:
        emits = [convert.emit(item, self._new_id) for item in request.emits]
        ends = [convert.completion(item, request.worker_id) for item in request.items]
        with translated():
            settled = await self._settling.settle(emits, ends)
        return pb.SettleTasksResponse(
            emits=[_emit_result(answer) for answer in settled.emits], results=_end_results(ends, settled.ends)
        )


def _end_results(ends: Sequence[Completion], answers: Sequence[EndAnswer]) -> list[CompleteTaskResult]:
    results: list[CompleteTaskResult] = []
    for op, answer in zip(ends, answers, strict=True):
        task_id = op.lease.task_id
        if isinstance(answer, Quarantined):
            results.append(CompleteTaskResult(task_id=task_id, error=quarantined(answer)))
        elif isinstance(answer, Refusal):
            results.append(CompleteTaskResult(task_id=task_id, error=convert.item_error(answer)))
        else:
            results.append(CompleteTaskResult(task_id=task_id, state=convert.task_state(answer)))
    return results


async def _take_credits(requests: AsyncIterator[pb.WatchWakeupsRequest], watcher: Watcher) -> None:
    async for request in requests:
        watcher.grant(request.credits)
    watcher.close()


def _not_found(task_id: str) -> ItemError:
    return ItemError(reason=ErrorReason.ERROR_REASON_TASK_NOT_FOUND, message=f"task {task_id} does not exist")


def _files(read: TaskRead, page: Page) -> list[Artifact]:
    """The first of a page tells the columns of all: they may have been frozen after the job's details were made."""
    files = [convert.artifact(row) for row in page.artifacts]
    for file in files[:1]:
        file.schema.update(read.schema or {})
        file.column_order.extend(read.column_order or ())
    return files


def _unresolved(index: int, reason: ErrorReason.ValueType, message: str) -> pb.ResolveInputsResponse:
    return pb.ResolveInputsResponse(item_index=index, last=True, error=ItemError(reason=reason, message=message))


def _heartbeat_result(result: BeatResult) -> pb.HeartbeatResult:
    return pb.HeartbeatResult(
        task_id=result.task_id,
        directive=pb.Directive.Value(f"DIRECTIVE_{result.directive.upper()}"),
        lease_until_time=convert.timestamp(result.lease_until),
        reason=result.reason,
    )


def _emit_result(verdict: EmitAnswer) -> EmitResult:
    if isinstance(verdict, Quarantined):
        return EmitResult(error=quarantined(verdict))
    if isinstance(verdict, Refusal):
        return EmitResult(error=convert.item_error(verdict))
    result = EmitResult()
    accepted = result.accepted
    accepted.state_version = verdict.state_version
    for event in verdict.events:
        if event.duplicate:
            accepted.events.add(event_id=event.event_id, duplicate=True, differs=event.differs)
        else:
            accepted.events.add(event_id=event.event_id)
    return result
