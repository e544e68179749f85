"""A service with all four kinds of call, on asyncio and on threads, which does what its requests say.

It is the contract's OperatorService, because that has all kinds; what it answers has no meaning beyond these tests.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any, TypeAlias

import grpc

from kernel.errors import TraceError, Violation
from kernel.servers import current_actor
from traceapi.operator.v1 import operator_service_pb2 as operator_pb2
from traceapi.operator.v1 import operator_service_pb2_grpc as operator_grpc
from traceapi.types.v1 import errors_pb2

AioContext: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
SECRET = "password=hunter2"
CHUNKS = 3


def misbehave(script: str) -> None:
    """Raise what the script names; other scripts do nothing."""
    if script == "crash":
        raise RuntimeError(SECRET)
    if script == "refuse":
        raise TraceError(
            errors_pb2.ERROR_REASON_OVERLOADED,
            "queue is full – später",
            metadata={"queue": "emit"},
            violations=[Violation("items[0]", "one too many")],
            retry_after=30.0,  # longer than the tests' deadlines, so that no client repeats it
        )
    if script == "taskgroup":
        raise ExceptionGroup("unhandled", [TraceError(errors_pb2.ERROR_REASON_STALE_LEASE, "lost")])
    if script == "mixedgroup":
        raise ExceptionGroup("unhandled", [TraceError(errors_pb2.ERROR_REASON_STALE_LEASE, "lost"), ValueError(SECRET)])


def attached(script: str) -> operator_pb2.AttachResponse:
    misbehave(script)
    return operator_pb2.AttachResponse(secrets={"actor": str(current_actor())})


def actor_or_none() -> str:
    try:
        return str(current_actor())
    except LookupError:
        return "nobody"


class PartlyServed(operator_grpc.OperatorServiceServicer):
    """The methods of the service that are not served: what the generated code does with them."""

    def Emit(self, request: operator_pb2.EmitRequest, context: Any) -> Any:
        return super().Emit(request, context)

    def FinishWork(self, request: operator_pb2.FinishWorkRequest, context: Any) -> Any:
        return super().FinishWork(request, context)

    def WriteLog(self, request: operator_pb2.WriteLogRequest, context: Any) -> Any:
        return super().WriteLog(request, context)

    def ReportProgress(self, request: operator_pb2.ReportProgressRequest, context: Any) -> Any:
        return super().ReportProgress(request, context)


class AioServicer(PartlyServed):
    """On asyncio: generators, except for what `ReadInput` of dataset `writer` does."""

    def __init__(self) -> None:
        self.ended = asyncio.Event()

    async def Attach(
        self,
        request: operator_pb2.AttachRequest,
        context: AioContext,
    ) -> operator_pb2.AttachResponse:
        if request.sdk == "abort":
            await context.abort(grpc.StatusCode.OUT_OF_RANGE, "said by the servicer")
        if request.sdk == "nobody":
            return operator_pb2.AttachResponse(secrets={"actor": actor_or_none()})
        return attached(request.sdk)

    async def ReadInput(
        self,
        request: operator_pb2.ReadInputRequest,
        context: AioContext,
    ) -> AsyncIterator[operator_pb2.ReadInputResponse]:
        try:
            for number in range(CHUNKS):
                yield operator_pb2.ReadInputResponse(arrow_ipc=b"%d" % number)
            if request.dataset_id == "endless":
                await asyncio.get_running_loop().create_future()
            misbehave(request.dataset_id)
        finally:
            self.ended.set()

    async def WriteOutput(
        self,
        requests: AsyncIterator[operator_pb2.WriteOutputRequest],
        context: AioContext,
    ) -> operator_pb2.WriteOutputResponse:
        size = 0
        async for request in requests:
            misbehave(request.arrow_ipc.decode())
            size += len(request.arrow_ipc)
        return operator_pb2.WriteOutputResponse(size_bytes=size)

    async def ReceiveWork(
        self,
        requests: AsyncIterator[operator_pb2.ReceiveWorkRequest],
        context: AioContext,
    ) -> AsyncIterator[operator_pb2.ReceiveWorkResponse]:
        async for request in requests:
            if request.credits == 13:
                misbehave("crash")
            yield operator_pb2.ReceiveWorkResponse(units=[operator_pb2.WorkUnit(unit_id=request.credits)])


class AioWritingServicer(AioServicer):
    """On asyncio, in the other style: answers are written to the context. The stubs know only the first one."""

    async def ReadInput(  # type: ignore[override]
        self,
        request: operator_pb2.ReadInputRequest,
        context: AioContext,
    ) -> Any:
        for number in range(CHUNKS):
            await context.write(operator_pb2.ReadInputResponse(arrow_ipc=b"%d" % number))
        misbehave(request.dataset_id)


class ThreadsServicer(PartlyServed):
    """On threads."""

    def Attach(self, request: operator_pb2.AttachRequest, context: grpc.ServicerContext) -> operator_pb2.AttachResponse:
        if request.sdk == "abort":
            context.abort(grpc.StatusCode.OUT_OF_RANGE, "said by the servicer")
        return attached(request.sdk)

    def ReadInput(
        self, request: operator_pb2.ReadInputRequest, context: grpc.ServicerContext
    ) -> Iterator[operator_pb2.ReadInputResponse]:
        for number in range(CHUNKS):
            yield operator_pb2.ReadInputResponse(arrow_ipc=b"%d" % number)
        misbehave(request.dataset_id)

    def WriteOutput(
        self, requests: Iterator[operator_pb2.WriteOutputRequest], context: grpc.ServicerContext
    ) -> operator_pb2.WriteOutputResponse:
        size = 0
        for request in requests:
            misbehave(request.arrow_ipc.decode())
            size += len(request.arrow_ipc)
        return operator_pb2.WriteOutputResponse(size_bytes=size)

    def ReceiveWork(
        self, requests: Iterator[operator_pb2.ReceiveWorkRequest], context: grpc.ServicerContext
    ) -> Iterator[operator_pb2.ReceiveWorkResponse]:
        for request in requests:
            if request.credits == 13:
                misbehave("crash")
            yield operator_pb2.ReceiveWorkResponse(units=[operator_pb2.WorkUnit(unit_id=request.credits)])
