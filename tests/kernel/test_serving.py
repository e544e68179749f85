"""Where servers listen, and how they stop."""

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from kernel.channels import aio_channel, sync_channel
from kernel.credentials import Role
from kernel.errors import from_rpc_error
from kernel.servers import AccessPolicy, aio_server, current_actor, sync_server, unix_aio_server
from kernel.servers.listening import ListenError
from tests.kernel.conftest import POLICY, SERVICE, TOKENS, VERIFIER, serving_aio
from tests.kernel.scripted_services import AioServicer, ThreadsServicer
from traceapi.operator.v1 import operator_service_pb2 as operator_pb2
from traceapi.operator.v1 import operator_service_pb2_grpc as operator_grpc
from traceapi.types.v1 import errors_pb2

TASK_ID = "0190b7a1-0000-7000-8000-000000000001"


class WaitingServicer(AioServicer):
    """Answers when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.entered, self.proceed, self.cancelled = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def Attach(self, request: operator_pb2.AttachRequest, context: Any) -> operator_pb2.AttachResponse:
        self.entered.set()
        try:
            await self.proceed.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        return operator_pb2.AttachResponse(secrets={"actor": str(current_actor())})


def user_channel(address: str) -> grpc.aio.Channel:
    return aio_channel(address, token=TOKENS[Role.USER], actor_name="local")


def attach(channel: grpc.aio.Channel) -> Any:
    return operator_grpc.OperatorServiceStub(channel).Attach(operator_pb2.AttachRequest(), timeout=20)


@pytest.mark.parametrize("make", [aio_server, sync_server])
@pytest.mark.parametrize("listen", ["0.0.0.0:0", "[::]:0", "10.0.0.1:0", "example.com:80"])
async def test_others_cannot_reach_a_server_without_tls(make: Any, listen: str) -> None:
    with pytest.raises(ListenError, match="without TLS"):
        make(listen=listen, verifier=VERIFIER, policy=POLICY)


@pytest.mark.parametrize("make", [aio_server, sync_server])
@pytest.mark.parametrize("listen", ["", "7401", "localhost:port"])
async def test_a_malformed_address_is_refused(make: Any, listen: str) -> None:
    with pytest.raises(ListenError, match="host:port"):
        make(listen=listen, verifier=VERIFIER, policy=POLICY)


async def test_a_port_that_is_taken_is_an_error() -> None:
    async with serving_aio(AioServicer()) as address:
        with pytest.raises(ListenError, match="cannot listen"):
            await aio_server(listen=address, verifier=VERIFIER, policy=POLICY).start()
        second = sync_server(listen=address, verifier=VERIFIER, policy=POLICY)
        with pytest.raises(ListenError, match="cannot listen"):
            second.start()


async def test_a_socket_path_that_is_too_long_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ListenError, match="107 bytes"):
        await unix_aio_server(tmp_path / ("x" * 108)).start()


async def test_a_server_that_stops_lets_its_calls_end_and_takes_no_more() -> None:
    servicer = WaitingServicer()
    served = aio_server(listen="127.0.0.1:0", verifier=VERIFIER, policy=POLICY)
    operator_grpc.add_OperatorServiceServicer_to_server(servicer, served.server)
    address = await served.start()
    async with user_channel(address) as running, user_channel(address) as late:
        call = attach(running)
        await servicer.entered.wait()
        stopping = asyncio.create_task(served.stop(30))
        while await is_served(late):
            pass
        servicer.proceed.set()
        assert (await call).secrets["actor"] == "user:local"
        await stopping
    await served.stop(0)


async def is_served(channel: grpc.aio.Channel) -> bool:
    """False once the server takes no more calls."""
    health: Any = health_pb2_grpc.HealthStub(channel)
    try:
        await health.Check(health_pb2.HealthCheckRequest(), timeout=20)
    except grpc.RpcError as error:
        # Cancelled: the call was on its way when the connection was closed to new ones.
        if error.code() not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED):
            raise
        return False
    return True


async def test_calls_that_outlast_the_grace_are_cancelled_and_may_be_repeated() -> None:
    servicer = WaitingServicer()
    served = aio_server(listen="127.0.0.1:0", verifier=VERIFIER, policy=POLICY)
    operator_grpc.add_OperatorServiceServicer_to_server(servicer, served.server)
    async with user_channel(await served.start()) as channel:
        call = attach(channel)
        await servicer.entered.wait()
        await served.stop(0)
        with pytest.raises(grpc.RpcError) as caught:
            await call
        assert from_rpc_error(caught.value).reason == errors_pb2.ERROR_REASON_UNAVAILABLE
        async with asyncio.timeout(20):
            await servicer.cancelled.wait()


async def test_watchers_of_health_hear_that_the_server_stops() -> None:
    served = aio_server(listen="127.0.0.1:0", verifier=VERIFIER, policy=AccessPolicy({Role.USER: frozenset({"/"})}))
    async with user_channel(await served.start()) as channel:
        health: Any = health_pb2_grpc.HealthStub(channel)
        watch = health.Watch(health_pb2.HealthCheckRequest(), timeout=20)
        statuses = aiter(watch)
        assert (await anext(statuses)).status == health_pb2.HealthCheckResponse.SERVING
        stopping = asyncio.create_task(served.stop(1))
        assert (await anext(statuses)).status == health_pb2.HealthCheckResponse.NOT_SERVING
        watch.cancel()
        await stopping


async def test_a_generator_is_closed_when_its_caller_leaves() -> None:
    servicer = AioServicer()
    async with serving_aio(servicer) as address, user_channel(address) as channel:
        request = operator_pb2.ReadInputRequest(task_id=TASK_ID, dataset_id="endless")
        answers: Any = operator_grpc.OperatorServiceStub(channel).ReadInput(request, timeout=20)
        await answers.read()
        answers.cancel()
        async with asyncio.timeout(20):
            await servicer.ended.wait()


class CountingServicer(ThreadsServicer):
    """Holds its thread until it is told to let go."""

    def __init__(self) -> None:
        self.entered, self.proceed = threading.Semaphore(0), threading.Event()

    def Attach(self, request: operator_pb2.AttachRequest, context: grpc.ServicerContext) -> operator_pb2.AttachResponse:
        self.entered.release()
        assert self.proceed.wait(20)
        return operator_pb2.AttachResponse()


@pytest.fixture
def busy() -> Iterator[tuple[CountingServicer, str]]:
    servicer = CountingServicer()
    served = sync_server(listen="127.0.0.1:0", verifier=VERIFIER, policy=POLICY, max_threads=2)
    operator_grpc.add_OperatorServiceServicer_to_server(servicer, served.server)
    try:
        yield servicer, served.start()
    finally:
        servicer.proceed.set()
        served.stop(0)
        served.stop(0)


def test_calls_beyond_the_threads_are_refused_and_not_kept(busy: tuple[CountingServicer, str]) -> None:
    servicer, address = busy
    with (
        sync_channel(address, token=TOKENS[Role.USER], actor_name="local") as channel,
        ThreadPoolExecutor(2) as callers,
    ):
        stub = operator_grpc.OperatorServiceStub(channel)
        running = [callers.submit(stub.Attach, operator_pb2.AttachRequest(), timeout=20) for _ in range(2)]
        for _ in running:
            assert servicer.entered.acquire(timeout=20)
        with pytest.raises(grpc.RpcError) as caught:
            stub.Attach(operator_pb2.AttachRequest(), timeout=20)
        assert from_rpc_error(caught.value).reason == errors_pb2.ERROR_REASON_OVERLOADED
        servicer.proceed.set()
        for call in running:
            call.result()


@pytest.mark.parametrize(
    ("entry", "allowed"),
    [
        ("/", True),
        ("/traceapi.", True),
        ("/traceapi.operator.v1.", True),
        (SERVICE, True),
        (f"{SERVICE}/", True),
        (f"{SERVICE}/Attach", True),
        (f"{SERVICE}/Att", False),
        ("/traceapi.operator.v1.Operator", False),
        ("/traceapi.operator.v1", False),
        ("/traceapi.operator.v2.", False),
    ],
)
def test_an_entry_of_a_policy_ends_at_a_border_of_the_name(entry: str, allowed: bool) -> None:
    assert AccessPolicy({Role.USER: frozenset({entry})}).allows(Role.USER, f"{SERVICE}/Attach") is allowed


def test_a_role_without_entries_may_call_nothing() -> None:
    assert not AccessPolicy({}).allows(Role.USER, f"{SERVICE}/Attach")
    assert not AccessPolicy({Role.WORKER: frozenset({"/"})}).allows(Role.USER, f"{SERVICE}/Attach")


def test_an_entry_that_is_no_method_is_refused() -> None:
    with pytest.raises(ValueError, match="does not begin"):
        AccessPolicy({Role.USER: frozenset({"traceapi.operator.v1.OperatorService"})})


def test_there_is_no_actor_outside_of_a_call() -> None:
    with pytest.raises(LookupError):
        current_actor()


def test_a_role_is_kept_from_a_method_of_a_package_that_it_may_call() -> None:
    packages = {Role.USER: frozenset({"/traceapi."}), Role.QUERYD: frozenset({"/traceapi."})}
    policy = AccessPolicy(packages, kept_from={Role.USER: frozenset({f"{SERVICE}/Attach"})})
    assert not policy.allows(Role.USER, f"{SERVICE}/Attach")
    assert policy.allows(Role.USER, f"{SERVICE}/Attached")
    assert policy.allows(Role.QUERYD, f"{SERVICE}/Attach")
