"""A full server: what it refuses and what it says, and clients that come again when they were told to."""

import asyncio
from contextlib import AsyncExitStack
from typing import Any

import grpc
import pytest

from kernel.channels import aio_channel, sync_channel
from kernel.credentials import Role
from kernel.errors import TraceError, from_rpc_error
from kernel.servers import aio_server
from kernel.servers.room import RETRY_AFTER, Room
from tests.kernel.conftest import POLICY, TOKENS, VERIFIER, serving_aio_in_thread
from tests.kernel.scripted_services import AioServicer
from traceapi.operator.v1 import operator_service_pb2 as operator_pb2
from traceapi.operator.v1 import operator_service_pb2_grpc as operator_grpc
from traceapi.types.v1 import errors_pb2

LINE = operator_pb2.WriteLogRequest(lines=[operator_pb2.OperatorLogLine(text="x" * 1000)])


class Holding(AioServicer):
    """Keeps every call of `WriteLog` until it is told to let go."""

    def __init__(self) -> None:
        super().__init__()
        self.entered, self.proceed = asyncio.Semaphore(0), asyncio.Event()

    async def WriteLog(self, request: operator_pb2.WriteLogRequest, context: Any) -> operator_pb2.WriteLogResponse:
        self.entered.release()
        await self.proceed.wait()
        return operator_pb2.WriteLogResponse()


@pytest.mark.parametrize("room", [Room(max_calls=2), Room(max_bytes=2 * LINE.ByteSize())], ids=["calls", "bytes"])
async def test_what_there_is_no_room_for_is_refused_at_once_and_taken_later(room: Room) -> None:
    servicer = Holding()
    served = aio_server(listen="127.0.0.1:0", verifier=VERIFIER, policy=POLICY, room=room)
    operator_grpc.add_OperatorServiceServicer_to_server(servicer, served.server)
    async with AsyncExitStack() as stack:
        address = await served.start()
        stack.push_async_callback(served.stop, 0)
        channel = await stack.enter_async_context(aio_channel(address, token=TOKENS[Role.USER], actor_name="local"))
        write = operator_grpc.OperatorServiceStub(channel).WriteLog
        running = [write(LINE, timeout=20) for _ in range(2)]
        for _ in running:
            await asyncio.wait_for(servicer.entered.acquire(), 20)
        with pytest.raises(grpc.RpcError) as caught:
            await write(LINE, timeout=20)
        error = from_rpc_error(caught.value)
        assert (error.reason, error.code, error.retry_after) == (
            errors_pb2.ERROR_REASON_OVERLOADED,
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            RETRY_AFTER,
        )
        servicer.proceed.set()
        for call in running:
            await call
        await write(LINE, timeout=20)


async def test_a_call_above_all_room_is_served_alone() -> None:
    room = Room(max_bytes=10)
    with room.taken(100), pytest.raises(TraceError), room.taken(1):
        pass
    with room.taken(10):
        pass


class Refusing(AioServicer):
    """Is full for the first calls."""

    def __init__(self, refusals: int, *, retry_after: float | None) -> None:
        super().__init__()
        self.calls = 0
        self._refusals = refusals
        self._retry_after = retry_after

    async def Attach(self, request: operator_pb2.AttachRequest, context: Any) -> operator_pb2.AttachResponse:
        self.calls += 1
        if self.calls <= self._refusals:
            raise TraceError(errors_pb2.ERROR_REASON_OVERLOADED, "full", retry_after=self._retry_after)
        return await super().Attach(request, context)


def attach(servicer: Refusing, *, timeout: float) -> operator_pb2.AttachResponse:
    """One call of a client on threads."""
    with (
        serving_aio_in_thread(lambda: servicer) as address,
        sync_channel(address, token=TOKENS[Role.USER], actor_name="local") as channel,
    ):
        return operator_grpc.OperatorServiceStub(channel).Attach(operator_pb2.AttachRequest(), timeout=timeout)


def test_a_refused_call_is_made_again_when_the_server_said() -> None:
    servicer = Refusing(2, retry_after=0.05)
    assert attach(servicer, timeout=20).secrets["actor"] == "user:local"
    assert servicer.calls == 3


@pytest.mark.parametrize(
    ("retry_after", "calls"),
    [(0.01, 6), (30.0, 1), (None, 1)],
    ids=["no end of it", "beyond the deadline", "nothing was said"],
)
def test_the_refusal_is_told_where_repeating_does_not_help(retry_after: float | None, calls: int) -> None:
    servicer = Refusing(100, retry_after=retry_after)
    with pytest.raises(grpc.RpcError) as caught:
        attach(servicer, timeout=20)
    assert from_rpc_error(caught.value).reason == errors_pb2.ERROR_REASON_OVERLOADED
    assert servicer.calls == calls
