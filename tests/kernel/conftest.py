"""Servers of the kernel's two kinds, each with the scripted service, on ports of their own."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager

import grpc
import pytest

from kernel.credentials import Role, TokenVerifier, token_digest
from kernel.servers import AccessPolicy, aio_server, sync_server
from tests.kernel.scripted_services import AioServicer, AioWritingServicer, ThreadsServicer
from traceapi.operator.v1 import operator_service_pb2_grpc as operator_grpc

SERVICE = "/traceapi.operator.v1.OperatorService"
TOKENS = {Role.USER: "user-token-0123456789", Role.WORKER: "worker-token-0123456789", Role.QUERYD: "queryd-token-01234"}
VERIFIER = TokenVerifier({role: token_digest(token) for role, token in TOKENS.items()})
POLICY = AccessPolicy(
    {Role.USER: frozenset({SERVICE}), Role.QUERYD: frozenset({f"{SERVICE}/Attach"})},
)


@asynccontextmanager
async def serving_aio(servicer: AioServicer, listen: str = "127.0.0.1:0") -> AsyncIterator[str]:
    served = aio_server(listen=listen, verifier=VERIFIER, policy=POLICY)
    operator_grpc.add_OperatorServiceServicer_to_server(servicer, served.server)
    try:
        yield await served.start()
    finally:
        await served.stop(0)


@contextmanager
def serving_aio_in_thread(make: Callable[[], AioServicer]) -> Iterator[str]:
    """An asyncio server in a thread with its own loop, so that a test can call it without one."""
    address: list[str] = []
    ready, loop, leave = threading.Event(), asyncio.new_event_loop(), asyncio.Event()

    async def serve() -> None:
        async with serving_aio(make()) as bound:
            address.append(bound)
            ready.set()
            await leave.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    try:
        assert ready.wait(20)
        yield address[0]
    finally:
        loop.call_soon_threadsafe(leave.set)
        thread.join(20)
        loop.close()


@contextmanager
def serving_threads() -> Iterator[str]:
    served = sync_server(listen="127.0.0.1:0", verifier=VERIFIER, policy=POLICY, max_threads=8)
    operator_grpc.add_OperatorServiceServicer_to_server(ThreadsServicer(), served.server)
    try:
        yield served.start()
    finally:
        served.stop(0)


STYLES: dict[str, Callable[[], AbstractContextManager[str]]] = {
    "aio": lambda: serving_aio_in_thread(AioServicer),
    "aio-writing": lambda: serving_aio_in_thread(AioWritingServicer),
    "threads": serving_threads,
}


@pytest.fixture(scope="module", params=sorted(STYLES))
def address(request: pytest.FixtureRequest) -> Iterator[str]:
    """The address of a server; every test with it runs against each kind of server and each style of servicer."""
    with STYLES[request.param]() as bound:
        yield bound


@pytest.fixture
def plain_channel(address: str) -> Iterator[grpc.Channel]:
    """A channel of grpc's own, which says nothing of its caller."""
    with grpc.insecure_channel(address) as channel:
        yield channel
