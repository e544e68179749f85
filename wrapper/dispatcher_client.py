"""The dispatcher, as this worker sees it: every call with its deadline, every failure as a TraceError."""

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TypeVar

import grpc
from google.protobuf.duration_pb2 import Duration

from kernel.crash import crash
from kernel.errors import TraceError, from_rpc_error
from traceapi.types.v1 import errors_pb2
from traceapi.types.v1.artifact_pb2 import Artifact
from traceapi.types.v1.event_pb2 import Event
from traceapi.types.v1.task_pb2 import TaskLease
from traceapi.worker.v1 import worker_service_pb2 as worker_pb2
from traceapi.worker.v1.completion_pb2 import CompleteItem
from traceapi.worker.v1.emit_pb2 import EmitItem, EmitResult
from traceapi.worker.v1.worker_service_pb2_grpc import WorkerServiceStub
from wrapper.backoff import Backoff
from wrapper.endings import UnitEnd, UnitVerdict

T = TypeVar("T")

_CALL_SECONDS = 20.0
_RESOLVE_SECONDS = 120.0
_MAX_RESOLVED = 1_000_000

# The same call may go through later; any other reason stays as it is however often it is repeated.
_PASSING = frozenset(
    {
        errors_pb2.ERROR_REASON_UNAVAILABLE,
        errors_pb2.ERROR_REASON_OUTCOME_UNKNOWN,
        errors_pb2.ERROR_REASON_OVERLOADED,
        errors_pb2.ERROR_REASON_DEADLINE_EXCEEDED,
        errors_pb2.ERROR_REASON_INTERNAL,
        errors_pb2.ERROR_REASON_UNAUTHENTICATED,  # tokens are exchanged while workers run
    }
)


def is_passing(error: TraceError) -> bool:
    """Whether the same call may go through later."""
    return error.reason in _PASSING


@dataclass(slots=True)
class ResolvedInput:
    """What a task reads of a dataset: files, or events where the dataset has none."""

    artifacts: list[Artifact] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)


class Dispatcher:
    """WorkerService over one channel."""

    def __init__(self, channel: grpc.aio.Channel, worker_id: str, lease_seconds: float) -> None:
        self._channel = channel
        self._stub = WorkerServiceStub(channel)
        self.worker_id = worker_id
        self._lease = lease_seconds

    @property
    def connected(self) -> bool:
        """Whether there is a connection at the moment."""
        return self._channel.get_state() is grpc.ChannelConnectivity.READY

    def watch(
        self, requests: AsyncIterator[worker_pb2.WatchWakeupsRequest]
    ) -> AsyncGenerator[worker_pb2.WatchWakeupsResponse, None]:
        """Wake-ups until the stream ends or fails. No deadline: keepalive finds a peer that has gone."""

        async def responses() -> AsyncGenerator[worker_pb2.WatchWakeupsResponse, None]:
            async with _failures():
                call = self._stub.WatchWakeups(requests)
                try:
                    async for response in call:
                        yield response
                finally:
                    call.cancel()

        return responses()

    async def claim(self, request: worker_pb2.ClaimTasksRequest) -> worker_pb2.ClaimTasksResponse:
        """One claim. `worker_id` and `lease_duration` are filled in."""
        request.worker_id = self.worker_id
        request.lease_duration.CopyFrom(_duration(self._lease))
        async with _failures():
            response = await self._stub.ClaimTasks(request, timeout=_CALL_SECONDS)
        crash("claim.answered")
        return response

    async def heartbeat(self, items: Sequence[worker_pb2.HeartbeatItem]) -> Sequence[worker_pb2.HeartbeatResult]:
        """One answer per lease, in order."""
        request = worker_pb2.HeartbeatRequest(
            worker_id=self.worker_id, items=items, lease_duration=_duration(self._lease)
        )
        async with _failures():
            response = await self._stub.Heartbeat(request, timeout=max(1.0, min(_CALL_SECONDS, self._lease / 3)))
            crash("heartbeat.answered")
            return _answers(response.results, items)

    async def emit(self, items: Sequence[EmitItem]) -> Sequence[EmitResult]:
        """One verdict per item, in order."""
        request = worker_pb2.EmitEventsRequest(worker_id=self.worker_id, items=items)
        crash("emit.ready")
        async with _failures():
            response = await self._stub.EmitEvents(request, timeout=_CALL_SECONDS)
            crash("emit.answered")
            return _answers(response.results, items)

    async def end(self, ends: Sequence[UnitEnd]) -> Sequence[UnitVerdict]:
        """One verdict per unit, in order."""
        items = [item for end in ends for item in end.completions]
        last_emits = [end.emit for end in ends if end.emit is not None]
        crash("end.ready")
        answer = await (self._settle(last_emits, items) if last_emits else self._complete(items))
        crash("end.answered")
        results = iter(_answers(answer.results, items))
        emits = iter(_answers(answer.emits, last_emits))
        return [
            UnitVerdict([next(results) for _ in end.completions], None if end.emit is None else next(emits))
            for end in ends
        ]

    async def _settle(self, emits: Sequence[EmitItem], items: Sequence[CompleteItem]) -> worker_pb2.SettleTasksResponse:
        request = worker_pb2.SettleTasksRequest(worker_id=self.worker_id, emits=emits, items=items)
        async with _failures():
            return await self._stub.SettleTasks(request, timeout=_CALL_SECONDS)

    async def _complete(self, items: Sequence[CompleteItem]) -> worker_pb2.SettleTasksResponse:
        request = worker_pb2.CompleteTasksRequest(worker_id=self.worker_id, items=items)
        async with _failures():
            response = await self._stub.CompleteTasks(request, timeout=_CALL_SECONDS)
        return worker_pb2.SettleTasksResponse(results=response.results)

    async def resolve_input(self, lease: TaskLease, dataset_id: str, alive: Callable[[], bool]) -> ResolvedInput:
        """What the task reads of the dataset; tried again while it fails in passing and the lease is held."""
        item = worker_pb2.ResolveInputItem(lease=lease, dataset_id=dataset_id)
        return await persist(lambda: self._resolve(item), alive)

    async def _resolve(self, item: worker_pb2.ResolveInputItem) -> ResolvedInput:
        found = ResolvedInput()
        async with _failures():
            call = self._stub.ResolveInputs(worker_pb2.ResolveInputsRequest(items=[item]), timeout=_RESOLVE_SECONDS)
            async for page in call:
                if page.HasField("error"):
                    raise TraceError(page.error.reason, page.error.message, metadata=dict(page.error.metadata))
                found.artifacts.extend(page.artifacts)
                found.events.extend(page.events)
                if len(found.artifacts) + len(found.events) > _MAX_RESOLVED:
                    call.cancel()
                    raise TraceError(
                        errors_pb2.ERROR_REASON_TOO_MANY_ROWS,
                        f"{item.dataset_id} has more than {_MAX_RESOLVED} files or events within one task's scope",
                    )
                if page.last:
                    return found
        raise TraceError(errors_pb2.ERROR_REASON_UNAVAILABLE, "the answer of ResolveInputs ended before its last page")


async def persist(
    call: Callable[[], Awaitable[T]],
    alive: Callable[[], bool],
    passing: Callable[[TraceError], bool] = is_passing,
) -> T:
    """Repeats a call that may be repeated, until it goes through, fails for good, or nobody needs it any more."""
    backoff = Backoff()
    while True:
        try:
            return await call()
        except TraceError as error:
            if not passing(error) or not alive():
                raise
            await backoff.sleep(error.retry_after)


def _answers(results: Sequence[T], items: Sequence[object]) -> Sequence[T]:
    if len(results) != len(items):
        raise TraceError(
            errors_pb2.ERROR_REASON_INTERNAL, f"the dispatcher gave {len(results)} answers to {len(items)} items"
        )
    return results


def _duration(seconds: float) -> Duration:
    duration = Duration()
    duration.FromNanoseconds(int(seconds * 1e9))
    return duration


@asynccontextmanager
async def _failures() -> AsyncIterator[None]:
    """Failed calls leave as TraceError."""
    try:
        yield
    except grpc.RpcError as error:
        raise from_rpc_error(error) from error
