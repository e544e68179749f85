"""A full server: what it refuses and what it says, and clients that come again when they were told to."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import grpc
import pytest

import kernel.servers.room
from kernel.channels import aio_channel, sync_channel
from kernel.credentials import Role
from kernel.errors import TraceError, from_rpc_error
from kernel.servers import aio_server
from kernel.servers.room import RETRY_AFTER, Place, Room
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

    async def ReceiveWork(
        self, requests: AsyncIterator[operator_pb2.ReceiveWorkRequest], context: Any
    ) -> AsyncIterator[operator_pb2.ReceiveWorkResponse]:
        self.entered.release()
        await self.proceed.wait()
        yield operator_pb2.ReceiveWorkResponse()


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


async def test_streams_take_no_place_of_calls() -> None:
    servicer = Holding()
    room = Room(max_calls=1, max_streams=2)
    served = aio_server(listen="127.0.0.1:0", verifier=VERIFIER, policy=POLICY, room=room)
    operator_grpc.add_OperatorServiceServicer_to_server(servicer, served.server)
    async with AsyncExitStack() as stack:
        address = await served.start()
        stack.push_async_callback(served.stop, 0)
        channel = await stack.enter_async_context(aio_channel(address, token=TOKENS[Role.USER], actor_name="local"))
        stub = operator_grpc.OperatorServiceStub(channel)
        streams = [stub.ReceiveWork(timeout=20) for _ in range(2)]
        for _ in streams:
            await asyncio.wait_for(servicer.entered.acquire(), 20)
        with pytest.raises(grpc.RpcError) as caught:
            await stub.ReceiveWork(timeout=20).read()
        assert from_rpc_error(caught.value).reason == errors_pb2.ERROR_REASON_OVERLOADED
        call = stub.WriteLog(LINE, timeout=20)
        await asyncio.wait_for(servicer.entered.acquire(), 20)
        servicer.proceed.set()
        await call


async def _call(room: Room, method: str = "Emit") -> Place:
    return await room.for_request(method, stream=False)


async def test_a_call_above_all_room_is_served_alone() -> None:
    room = Room(max_bytes=10)
    first, second = await _call(room), await _call(room)
    with first:
        first.received(100)
        with pytest.raises(TraceError):
            second.received(1)
        with pytest.raises(TraceError):  # before a byte of it is read
            await _call(room)
    second.leave()
    with await _call(room) as last:
        last.received(10)


async def test_few_requests_of_a_method_come_in_at_once_and_other_methods_pass_by() -> None:
    room = Room(max_coming_in=2)
    first, second = await _call(room), await _call(room)
    third = asyncio.create_task(_call(room))
    await _call(room, "Heartbeat")
    assert not third.done()
    first.received(1)
    await third
    fourth = asyncio.create_task(_call(room))
    second.leave()  # its request never came
    second.leave()
    await fourth


async def test_who_has_waited_too_long_for_a_turn_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel.servers.room, "_TURN_SECONDS", 0)
    room = Room(max_calls=2, max_coming_in=1)
    first = await _call(room)
    with pytest.raises(TraceError) as caught:
        await _call(room)
    assert caught.value.retry_after == RETRY_AFTER
    first.received(1)
    await _call(room)  # who was refused keeps no place


async def test_who_gives_up_waiting_keeps_no_place() -> None:
    room = Room(max_calls=2, max_coming_in=1)
    first = await _call(room)
    second = asyncio.create_task(_call(room))
    await asyncio.sleep(0)
    second.cancel()
    await asyncio.wait([second])
    first.received(1)
    await _call(room)


async def test_streams_have_a_number_of_their_own() -> None:
    room = Room(max_calls=1, max_streams=2)
    await _call(room)
    one, _ = room.for_requests(), await room.for_request("Watch", stream=True)
    with pytest.raises(TraceError):
        room.for_requests()
    one.leave()
    room.for_requests()


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
