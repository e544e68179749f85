"""A dispatcher in memory, behind a real socket: the semantics of traceapi.worker.v1, without Postgres.

It judges leases, tokens, epochs, state versions and event keys as the contract says, routes accepted events to
consumers, and can be told to fail calls before or after they took effect. Whoever waits, waits for a condition on its
state.
"""

import asyncio
import time
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any, TypeVar

import grpc
from google.protobuf.duration_pb2 import Duration

from kernel.errors import TraceError, item_error
from kernel.ids import new_id
from kernel.scopes import cursor_key, scope_key
from tests.wrapper.fake_state import FakeState, FakeTask
from traceapi.types.v1 import errors_pb2 as errors
from traceapi.types.v1.event_pb2 import Event
from traceapi.types.v1.job_pb2 import JobDetails
from traceapi.types.v1.scope_pb2 import CursorValue, Scope
from traceapi.worker.v1 import worker_service_pb2 as pb
from traceapi.worker.v1.worker_service_pb2_grpc import WorkerServiceServicer

Context = grpc.aio.ServicerContext[Any, Any]
_DEADLINE = 30.0
Response = TypeVar("Response")


class FakeDispatcher(FakeState, WorkerServiceServicer):
    """The state behind a socket."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: dict[str, int] = defaultdict(int)
        self.claims: dict[str, pb.ClaimTasksResponse] = {}
        self.claim_requests: list[pb.ClaimTasksRequest] = []
        self.heartbeats: list[pb.HeartbeatRequest] = []
        self.faults: dict[str, deque[str]] = defaultdict(deque)
        self.slow: set[str] = set()  # a claim of one of these tasks is not answered while they stand here
        self.emits_together = 1  # emits are answered once so many have arrived
        self._emits = 0
        self._changed = asyncio.Condition()

    # What a test arranges and waits for.

    def add_job(self, details: JobDetails) -> JobDetails:
        self.jobs[details.job_version_id] = details
        return details

    async def add_task(self, details: JobDetails, scope: Scope | None = None, event: Event | None = None) -> FakeTask:
        task = self.new_task(details, scope, event)
        await self.notify()
        return task

    async def add_tasks(self, details: JobDetails, scopes: Iterable[Scope]) -> list[FakeTask]:
        tasks = self.new_tasks(details, scopes)
        await self.notify()
        return tasks

    def new_tasks(self, details: JobDetails, scopes: Iterable[Scope]) -> list[FakeTask]:
        """Nobody hears of them before the next notice."""
        dataset = next((item for item in details.inputs if item.trigger), None)
        tasks = []
        for scope in scopes:
            event = None
            if dataset is not None:
                event = Event(event_id=new_id(), dataset_id=dataset.dataset_id, scope=scope, producer_task_id=new_id())
            tasks.append(self.new_task(details, scope, event))
        return tasks

    async def cancel(self, task: FakeTask) -> None:
        """From now on the task is one to stop."""
        task.canceled = True
        await self.notify()

    def lose_lease(self, task: FakeTask) -> None:
        """As if it had expired and another worker had taken the task."""
        task.attempt += 1
        task.token = b"another"

    async def notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    async def until(self, condition: Callable[[], bool], deadline: float = _DEADLINE) -> None:
        """Waits until the condition holds."""
        async with asyncio.timeout(deadline), self._changed:
            await self._changed.wait_for(condition)

    async def all_end(self, deadline: float = _DEADLINE) -> None:
        """Waits until no task is open."""
        await self.until(lambda: all(task.state == "dead" for task in self.open.values()), deadline)

    # What the wrapper calls.

    async def WatchWakeups(
        self, request_iterator: AsyncIterator[pb.WatchWakeupsRequest], context: Context
    ) -> AsyncIterator[pb.WatchWakeupsResponse]:
        await self._begin("WatchWakeups")
        first = await anext(request_iterator)
        worker_id = first.start.worker_id
        self.watchers[worker_id] = first.start.credits
        await self.notify()
        reader = asyncio.create_task(self._credits(worker_id, request_iterator))
        try:
            while True:
                ids: list[str] = []
                async with self._changed:
                    await self._changed.wait_for(lambda: bool(self.releasable(worker_id)) or self._faulty("Watch"))
                    if self._faulty("Watch"):
                        self.faults["Watch"].popleft()
                        raise TraceError(errors.ERROR_REASON_UNAVAILABLE, "the watch is to fail")
                    ids = self.releasable(worker_id)
                    for task_id in ids:
                        self.tasks[task_id].state = "released"
                    self.watchers[worker_id] -= len(ids)
                yield pb.WatchWakeupsResponse(task_ids=ids)
        finally:
            reader.cancel()
            self.watchers.pop(worker_id, None)
            for task in self.tasks.values():
                if task.state == "released":
                    task.state = "queued"
            await self.notify()

    async def _credits(self, worker_id: str, requests: AsyncIterator[pb.WatchWakeupsRequest]) -> None:
        async for request in requests:
            self.watchers[worker_id] += request.credits
            self.grants.append(request.credits)
            await self.notify()

    def _faulty(self, name: str) -> bool:
        return bool(self.faults[name])

    async def FetchTasks(self, request: pb.FetchTasksRequest, context: Context) -> pb.FetchTasksResponse:
        raise TraceError(errors.ERROR_REASON_NOT_IMPLEMENTED, "no wrapper asks for this")

    async def ClaimTasks(self, request: pb.ClaimTasksRequest, context: Context) -> pb.ClaimTasksResponse:
        await self._begin("ClaimTasks")
        self.claim_requests.append(request)
        async with self._changed:
            self._changed.notify_all()
            await self._changed.wait_for(lambda: self.slow.isdisjoint(request.task_ids))
        response = self.claims.get(request.request_id)
        if response is None:
            response = self.claims[request.request_id] = self.claim(request)
        return await self._end("ClaimTasks", response)

    async def Heartbeat(self, request: pb.HeartbeatRequest, context: Context) -> pb.HeartbeatResponse:
        await self._begin("Heartbeat")
        self.heartbeats.append(request)
        response = pb.HeartbeatResponse()
        until = time.monotonic() + _seconds(request.lease_duration)
        for item in request.items:
            result = response.results.add(task_id=item.lease.task_id)
            task = self.tasks[item.lease.task_id]
            if self.lease_error(item.lease, item.stream if item.HasField("stream") else None) is not None:
                result.directive = pb.DIRECTIVE_LEASE_LOST
            elif task.canceled:
                result.directive = pb.DIRECTIVE_CANCEL
                result.reason = "a person cancelled it"
            else:
                result.directive = pb.DIRECTIVE_CONTINUE
                task.lease_until = until
                if item.HasField("stream"):
                    self.streams[item.stream.job_version_id].lease_until = until
                if item.HasField("progress"):
                    task.progress = item.progress
        return await self._end("Heartbeat", response)

    async def ResolveInputs(
        self, request: pb.ResolveInputsRequest, context: Context
    ) -> AsyncIterator[pb.ResolveInputsResponse]:
        await self._begin("ResolveInputs")
        for index, item in enumerate(request.items):
            task = self.tasks[item.lease.task_id]
            declared = next((one for one in task.job.inputs if one.dataset_id == item.dataset_id), None)
            if declared is None or task.scope is None:
                error = item_error(errors.ERROR_REASON_DATASET_NOT_READ, item.dataset_id)
                yield pb.ResolveInputsResponse(item_index=index, last=True, error=error)
                continue
            within = scope_key(task.scope)
            first = within.first
            if declared.lookback:
                low = task.scope.range.first if task.scope.HasField("range") else task.scope.cursor
                first = cursor_key(CursorValue(int64_value=low.int64_value - declared.lookback))
            found = self.events_of(item.dataset_id)
            artifacts = {
                accepted.artifact.key: accepted.artifact
                for accepted in found
                if accepted.artifact is not None and _meets(accepted.artifact.scope, first, within.last)
            }
            events = [accepted.event for accepted in found if _meets(accepted.event.scope, first, within.last)]
            for artifact in artifacts.values():
                yield pb.ResolveInputsResponse(item_index=index, artifacts=[artifact])
            yield pb.ResolveInputsResponse(item_index=index, events=events, last=True)

    async def EmitEvents(self, request: pb.EmitEventsRequest, context: Context) -> pb.EmitEventsResponse:
        await self._begin("EmitEvents")
        async with self._changed:
            self._emits += len(request.items)
            self._changed.notify_all()
            await self._changed.wait_for(lambda: self._emits >= self.emits_together)
        response = pb.EmitEventsResponse(results=[self.emit(item) for item in request.items])
        return await self._end("EmitEvents", response)

    async def CompleteTasks(self, request: pb.CompleteTasksRequest, context: Context) -> pb.CompleteTasksResponse:
        await self._begin("CompleteTasks")
        blamed: set[str] = set()
        response = pb.CompleteTasksResponse(results=[self.complete(item, blamed) for item in request.items])
        return await self._end("CompleteTasks", response)

    async def SettleTasks(self, request: pb.SettleTasksRequest, context: Context) -> pb.SettleTasksResponse:
        await self._begin("SettleTasks")
        blamed: set[str] = set()
        emits = [self.emit(item) for item in request.emits]
        results = [self.complete(item, blamed) for item in request.items]
        return await self._end("SettleTasks", pb.SettleTasksResponse(results=results, emits=emits))

    async def _begin(self, name: str) -> None:
        self.calls[name] += 1
        if self.faults[name] and self.faults[name][0] == "before":
            self.faults[name].popleft()
            raise TraceError(errors.ERROR_REASON_UNAVAILABLE, "to fail before anything was done")

    async def _end(self, name: str, response: Response) -> Response:
        await self.notify()
        if self.faults[name] and self.faults[name][0] == "after":
            self.faults[name].popleft()
            raise TraceError(errors.ERROR_REASON_OUTCOME_UNKNOWN, "to fail after everything was done")
        return response


def _meets(scope: Scope, first: bytes, last: bytes) -> bool:
    key = scope_key(scope)
    return key.first <= last and key.last >= first


def _seconds(duration: Duration) -> float:
    return duration.seconds + duration.nanos / 1e9
