"""Small documents, and the messages of a worker, so that a test says only what it is about."""

import hashlib
import os
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from google.protobuf.duration_pb2 import Duration

from kernel.column_types import schema_digest
from tests.dispatcher.in_process import InProcess
from traceapi.types.v1.artifact_pb2 import Artifact
from traceapi.types.v1.errors_pb2 import ErrorReason, ItemError
from traceapi.types.v1.scope_pb2 import CursorRange, CursorValue, RangeManifest, Scope
from traceapi.types.v1.task_pb2 import ErrorClass, StreamLease, TaskFailure, TaskLease, TaskState
from traceapi.worker.v1 import worker_service_pb2 as pb
from traceapi.worker.v1.completion_pb2 import CompleteItem, CompleteTaskResult, TaskSuccess
from traceapi.worker.v1.emit_pb2 import EmitItem, EmitResult, EmittedEvent, StateWrite, WatermarkMove

NUMBERS = {"number": "int64"}

# A source; an ordered job; and a job of one task and one file per event.
CHAIN = """\
dag: chain
defaults: {execution: {max_attempts: 3}}
jobs:
  blocks:
    source: replay
    config: {path: /data/blocks.csv, cursor: number}
    outputs:
      blocks: {cursor: {column: number, type: int64}, schema: {number: int64}}
  ranges: {operator: aggregator, inputs: {blocks: {}}, config: {size: 10}, outputs: {ranges: {storage: none}}}
  copies:
    operator: sql
    config: {sql: select number from blocks}
    inputs: {blocks: {}}
    outputs: {copies: {schema: {number: int64}}}
"""

READER = """\
dag: reader
jobs:
  echo: {operator: splitter, inputs: {blocks: {}}, outputs: {echoes: {storage: none}}}
"""


def int64(number: int) -> CursorValue:
    return CursorValue(int64_value=number)


def at(number: int, *, revision: int = 0) -> Scope:
    return Scope(cursor=int64(number), revision=revision)


def between(first: int, last: int, *, revision: int = 0) -> Scope:
    return Scope(range=CursorRange(first=int64(first), last=int64(last)), revision=revision)


def manifest(first: int, last: int) -> RangeManifest:
    ends = CursorRange(first=int64(first), last=int64(last))
    return RangeManifest(boundaries=ends, unit_count=last - first + 1, members=[ends])


def event(
    dataset: str,
    scope: Scope,
    *,
    artifact: int | None = None,
    task: int = 0,
    units: RangeManifest | None = None,
) -> EmittedEvent:
    return EmittedEvent(dataset_id=dataset, scope=scope, artifact_index=artifact, task_index=task, manifest=units)


def success(lease: TaskLease, events: int = 0, stream: StreamLease | None = None) -> CompleteItem:
    return CompleteItem(lease=lease, stream=stream, success=TaskSuccess(emitted_event_count=events))


def failure(
    lease: TaskLease,
    stream: StreamLease | None = None,
    *,
    error_class: ErrorClass.ValueType = ErrorClass.ERROR_CLASS_USER,
    message: str = "it broke",
    traceback: str = "Traceback: it broke",
) -> CompleteItem:
    failed = TaskFailure(error_class=error_class, message=message, traceback=traceback)
    return CompleteItem(lease=lease, stream=stream, failure=failed)


def reason_of(error: ItemError) -> str:
    """The name of an item's refusal, as the contract writes it."""
    return ErrorReason.Name(error.reason).removeprefix("ERROR_REASON_")


def verdict(result: EmitResult | CompleteTaskResult | pb.ClaimTaskResult) -> str:
    """`accepted`, `claimed`, `run_index`, a task state in lower case, or the reason of a refusal."""
    if result.HasField("error"):
        return reason_of(result.error)
    if isinstance(result, CompleteTaskResult):
        return TaskState.Name(result.state).removeprefix("TASK_STATE_").lower()
    return str(result.WhichOneof("outcome"))


@dataclass(slots=True)
class Worker:
    """A worker by hand: it claims with one token, and remembers nothing."""

    dispatcher: InProcess
    worker_id: str = "worker-1"
    token: bytes = field(default_factory=lambda: os.urandom(32))

    async def claim(
        self,
        task_ids: Iterable[str],
        *,
        request_id: str | None = None,
        max_run_tasks: int = 0,
        seconds: int = 60,
        known_details_ids: Iterable[str] = (),
    ) -> pb.ClaimTasksResponse:
        return await self.dispatcher.worker.ClaimTasks(
            pb.ClaimTasksRequest(
                request_id=request_id or str(uuid.uuid4()),
                worker_id=self.worker_id,
                lease_token=self.token,
                task_ids=task_ids,
                lease_duration=Duration(seconds=seconds),
                max_run_tasks=max_run_tasks,
                known_details_ids=known_details_ids,
            )
        )

    async def claim_one(self, task_id: str) -> pb.ClaimedTask:
        (result,) = (await self.claim([task_id])).results
        assert result.HasField("claimed"), result
        return result.claimed

    async def claim_run(self, task_id: str, *, max_run_tasks: int = 0) -> pb.TaskRun:
        response = await self.claim([task_id], max_run_tasks=max_run_tasks)
        assert response.results[0].HasField("run_index"), response
        return response.runs[0]

    def lease(self, task: pb.ClaimedTask) -> TaskLease:
        return TaskLease(task_id=task.task_id, attempt=task.attempt, lease_token=self.token)

    def leases(self, run: pb.TaskRun) -> list[TaskLease]:
        return [self.lease(task) for task in run.tasks]

    async def emit(self, *items: EmitItem) -> list[EmitResult]:
        request = pb.EmitEventsRequest(worker_id=self.worker_id, items=items)
        return list((await self.dispatcher.worker.EmitEvents(request)).results)

    async def complete(self, *items: CompleteItem) -> list[str]:
        """The verdicts, as `verdict` names them."""
        request = pb.CompleteTasksRequest(worker_id=self.worker_id, items=items)
        return [verdict(result) for result in (await self.dispatcher.worker.CompleteTasks(request)).results]

    async def end(self, emits: Sequence[EmitItem], items: Sequence[CompleteItem]) -> tuple[list[str], list[str]]:
        """Emits and completions in one call; the verdicts on both."""
        request = pb.SettleTasksRequest(worker_id=self.worker_id, items=items, emits=emits)
        response = await self.dispatcher.worker.SettleTasks(request)
        return [verdict(result) for result in response.emits], [verdict(result) for result in response.results]

    async def beat(self, *items: pb.HeartbeatItem) -> list[str]:
        request = pb.HeartbeatRequest(worker_id=self.worker_id, items=items, lease_duration=Duration(seconds=60))
        response = await self.dispatcher.worker.Heartbeat(request)
        return [pb.Directive.Name(result.directive).removeprefix("DIRECTIVE_").lower() for result in response.results]


async def artifact(
    dispatcher: InProcess,
    dataset: str,
    scope: Scope,
    *,
    content: bytes | None = None,
    schema: dict[str, str] | None = None,
    key: str | None = None,
) -> Artifact:
    """A file in the store, described as a wrapper would. Its content is not Parquet: the dispatcher never reads it."""
    version = await dispatcher.value("select dataset_version_id::text from pointer where dataset_id = %s", dataset)
    data = content if content is not None else os.urandom(16)
    name = key or f"data/{version}/{uuid.uuid4()}-1-0.parquet"
    dispatcher.store.put_bytes(name, data)
    columns = schema or NUMBERS
    return Artifact(
        dataset_id=dataset,
        key=name,
        scope=scope,
        row_count=1,
        size_bytes=len(data),
        sha256=hashlib.sha256(data).digest(),
        schema_digest=schema_digest(columns),
        schema=columns,
    )


@dataclass(slots=True)
class Source:
    """The claimed run of the source `blocks`."""

    worker: Worker
    lease: TaskLease
    version: int = 0

    async def publish(self, numbers: Sequence[int], *, watermark: bool = True) -> list[str]:
        """Emits blocks in one item, with one file; answers the ids of the events."""
        item = await self.item(numbers, watermark=watermark)
        (result,) = await self.worker.emit(item)
        assert result.HasField("accepted"), result
        self.version = result.accepted.state_version
        return [event.event_id for event in result.accepted.events]

    async def item(self, numbers: Sequence[int], *, watermark: bool = True) -> EmitItem:
        file = await artifact(self.worker.dispatcher, "blocks", between(min(numbers), max(numbers)))
        moves = [WatermarkMove(dataset_id="blocks", cursor=int64(max(numbers)))] if watermark else []
        return EmitItem(
            tasks=[self.lease],
            artifacts=[file],
            events=[event("blocks", at(number), artifact=0) for number in numbers],
            state=StateWrite(data=str(max(numbers)).encode(), expected_version=self.version),
            watermarks=moves,
        )


async def start_source(dispatcher: InProcess) -> Source:
    """Releases and claims the run of the source."""
    await dispatcher.release()
    task_id = str(
        await dispatcher.value("select task_id::text from task where origin = 'source_run' and state = 'released'")
    )
    worker = Worker(dispatcher, "source-worker")
    return Source(worker, worker.lease(await worker.claim_one(task_id)))
