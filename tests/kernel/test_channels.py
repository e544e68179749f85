"""Channels of both kinds with real servers: what they send, where they refuse to, how they find a server again."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeAlias

import grpc
import pytest

from kernel.channels import aio_channel, check_address, sync_channel
from kernel.credentials import Role
from kernel.errors import TraceError, from_rpc_error
from kernel.servers import TlsFiles, aio_server, unix_aio_server
from kernel.tls import PUBLIC_AUTHORITIES, client_tls, split_address
from tests.certificates import Authority
from tests.kernel.conftest import POLICY, TOKENS, VERIFIER, serving_aio
from tests.kernel.scripted_services import AioServicer
from traceapi.operator.v1 import operator_service_pb2 as operator_pb2
from traceapi.operator.v1 import operator_service_pb2_grpc as operator_grpc
from traceapi.types.v1 import errors_pb2

TASK_ID = "0190b7a1-0000-7000-8000-000000000001"
Stub: TypeAlias = "operator_grpc.OperatorServiceAsyncStub"  # a name of the type stubs only
ATTACH = operator_pb2.AttachRequest()


def user_channel(address: str, **more: Any) -> grpc.aio.Channel:
    return aio_channel(address, token=TOKENS[Role.USER], actor_name="local", **more)


def stub(channel: grpc.aio.Channel) -> Stub:
    return operator_grpc.OperatorServiceStub(channel)


class FailingServicer(AioServicer):
    """Is unavailable for the first calls."""

    def __init__(self, failures: int) -> None:
        super().__init__()
        self.calls = 0
        self._failures = failures

    def _fail(self) -> None:
        self.calls += 1
        if self.calls <= self._failures:
            raise TraceError(errors_pb2.ERROR_REASON_UNAVAILABLE, f"failure {self.calls}")

    async def Attach(self, request: operator_pb2.AttachRequest, context: Any) -> operator_pb2.AttachResponse:
        self._fail()
        return await super().Attach(request, context)

    async def ReadInput(
        self, request: operator_pb2.ReadInputRequest, context: Any
    ) -> AsyncIterator[operator_pb2.ReadInputResponse]:
        self._fail()
        async for answer in super().ReadInput(request, context):
            yield answer


async def test_an_aio_channel_serves_the_four_kinds_of_call() -> None:
    async def chunks() -> AsyncIterator[operator_pb2.WriteOutputRequest]:
        for chunk in (b"abc", b"de"):
            yield operator_pb2.WriteOutputRequest(arrow_ipc=chunk)

    async with serving_aio(AioServicer()) as address, user_channel(address) as channel:
        calls = stub(channel)
        assert (await calls.Attach(ATTACH)).secrets["actor"] == "user:local"
        request = operator_pb2.ReadInputRequest(task_id=TASK_ID, dataset_id="a")
        assert [answer.arrow_ipc async for answer in calls.ReadInput(request)] == [b"0", b"1", b"2"]
        assert (await calls.WriteOutput(chunks())).size_bytes == 5
        receiving = calls.ReceiveWork()
        for credit in (3, 1):
            await receiving.write(operator_pb2.ReceiveWorkRequest(credits=credit))
            answer = await receiving.read()
            assert isinstance(answer, operator_pb2.ReceiveWorkResponse)
            assert answer.units[0].unit_id == credit
        await receiving.done_writing()
        assert await receiving.read() is grpc.aio.EOF


async def test_an_aio_failure_is_the_server_s() -> None:
    async with serving_aio(AioServicer()) as address, user_channel(address) as channel:
        with pytest.raises(grpc.RpcError) as caught:
            await stub(channel).Attach(operator_pb2.AttachRequest(sdk="refuse"))
        error = from_rpc_error(caught.value)
        assert (error.reason, error.retry_after) == (errors_pb2.ERROR_REASON_OVERLOADED, 30.0)
        request = operator_pb2.ReadInputRequest(task_id="no uuid", dataset_id="")
        with pytest.raises(grpc.RpcError) as caught:
            [answer async for answer in stub(channel).ReadInput(request)]
        assert len(from_rpc_error(caught.value).violations) == 2


async def test_metadata_of_the_caller_is_kept() -> None:
    async with serving_aio(AioServicer()) as address, aio_channel(address, token=None, actor_name="") as channel:
        metadata = (("authorization", f"Bearer {TOKENS[Role.QUERYD]}"), ("trace-actor-name", "mine"))
        assert (await stub(channel).Attach(ATTACH, metadata=metadata)).secrets["actor"] == "queryd:mine"


async def test_a_call_that_finds_the_server_unavailable_is_repeated() -> None:
    servicer = FailingServicer(3)
    async with serving_aio(servicer) as address, user_channel(address) as channel:
        assert (await stub(channel).Attach(ATTACH, timeout=20)).secrets["actor"] == "user:local"
        assert servicer.calls == 4


async def test_a_stream_without_answers_yet_is_repeated() -> None:
    servicer = FailingServicer(2)
    async with serving_aio(servicer) as address, user_channel(address) as channel:
        request = operator_pb2.ReadInputRequest(task_id=TASK_ID, dataset_id="a")
        assert len([answer async for answer in stub(channel).ReadInput(request, timeout=20)]) == 3
        assert servicer.calls == 3


async def test_a_large_call_is_repeated_too() -> None:
    servicer = FailingServicer(1)
    async with serving_aio(servicer) as address, user_channel(address) as channel:
        request = operator_pb2.AttachRequest(sdk="x")
        request.MergeFromString(_unknown_field(bytes(1 << 20)))
        assert request.ByteSize() > 1 << 20
        await stub(channel).Attach(request, timeout=20)
        assert servicer.calls == 2


def _unknown_field(content: bytes) -> bytes:
    """A field of bytes, numbered 1000, which no message here has: a large message without a large value."""
    size, length = len(content), b""
    while size > 0x7F:
        length += bytes([size & 0x7F | 0x80])
        size >>= 7
    return b"\xc2\x3e" + length + bytes([size]) + content


async def test_repeating_ends_and_the_last_failure_is_told() -> None:
    servicer = FailingServicer(100)
    async with serving_aio(servicer) as address, user_channel(address) as channel:
        with pytest.raises(grpc.RpcError) as caught:
            await stub(channel).Attach(ATTACH, timeout=20)
    assert (from_rpc_error(caught.value).message, servicer.calls) == ("failure 5", 5)


async def test_other_failures_are_not_repeated() -> None:
    class Refusing(FailingServicer):
        def _fail(self) -> None:
            self.calls += 1
            raise TraceError(errors_pb2.ERROR_REASON_STATE_CONFLICT, "moved")

    servicer = Refusing(0)
    async with serving_aio(servicer) as address, user_channel(address) as channel:
        with pytest.raises(grpc.RpcError):
            await stub(channel).Attach(ATTACH, timeout=20)
    assert servicer.calls == 1


async def test_a_channel_finds_a_server_that_was_restarted() -> None:
    async with serving_aio(AioServicer()) as address:
        channel = user_channel(address)
        await stub(channel).Attach(ATTACH, timeout=20)
    with pytest.raises(grpc.RpcError) as caught:
        await stub(channel).Attach(ATTACH, timeout=20)
    assert from_rpc_error(caught.value).reason == errors_pb2.ERROR_REASON_UNAVAILABLE
    async with serving_aio(AioServicer(), listen=address):
        await stub(channel).Attach(ATTACH, timeout=20, wait_for_ready=True)
    await channel.close()


async def test_calls_go_to_all_servers_of_a_list_in_turn() -> None:
    servicers = [FailingServicer(0), FailingServicer(0)]
    async with serving_aio(servicers[0]) as first, serving_aio(servicers[1]) as second:
        both = f"{first},{second.replace('127.0.0.1', 'localhost')}"
        async with user_channel(both) as channel, asyncio.timeout(20):
            while not all(servicer.calls > 1 for servicer in servicers):
                await stub(channel).Attach(ATTACH, timeout=20)


async def test_a_list_goes_on_without_the_server_that_is_down() -> None:
    async with serving_aio(AioServicer()) as up:
        async with serving_aio(AioServicer()) as down:
            pass
        async with user_channel(f"{down},{up}") as channel:
            for _ in range(5):
                await stub(channel).Attach(ATTACH, timeout=20)


@pytest.mark.parametrize("make", [aio_channel, sync_channel])
@pytest.mark.parametrize("address", ["example.com:7401", "10.0.0.1:7401", "0.0.0.0:1", "127.0.0.1:1,10.0.0.1:1"])
async def test_a_token_is_not_sent_in_the_clear_to_another_machine(make: Any, address: str) -> None:
    with pytest.raises(ValueError, match="only with TLS") as caught:
        make(address, token=TOKENS[Role.USER], actor_name="local")
    assert TOKENS[Role.USER] not in str(caught.value)


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("", "host:port"),
        ("localhost", "host:port"),
        ("localhost:", "host:port"),
        ("localhost:http", "host:port"),
        ("localhost:65536", "host:port"),
        ("::1:80", r"\[::1\]"),
        ("localhost:1,", "host:port"),
        ("localhost:1,[::1]:2", "either IPv4 or IPv6"),
        ("a.example:1,b.example:2", "IP addresses"),
    ],
)
async def test_a_malformed_address_is_refused_with_a_remedy(address: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        aio_channel(address, token=None, actor_name="local")


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.make(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def certificate(authority: Authority) -> TlsFiles:
    return authority.issue("localhost", "DNS:localhost", "IP:127.0.0.1")


@asynccontextmanager
async def serving_tls(certificate: TlsFiles, servicer: AioServicer) -> AsyncIterator[str]:
    """On all addresses of this machine; answers its port on loopback."""
    served = aio_server(listen="0.0.0.0:0", verifier=VERIFIER, policy=POLICY, tls=certificate)
    operator_grpc.add_OperatorServiceServicer_to_server(servicer, served.server)
    address = await served.start()
    try:
        yield address.replace("0.0.0.0", "127.0.0.1")
    finally:
        await served.stop(0)


async def test_tls_serves_on_any_address(authority: Authority, certificate: TlsFiles) -> None:
    async with (
        serving_tls(certificate, AioServicer()) as address,
        user_channel(address, tls=client_tls(authority.file)) as channel,
    ):
        assert (await stub(channel).Attach(ATTACH, timeout=20)).secrets["actor"] == "user:local"


async def test_a_server_of_another_authority_gets_no_token(certificate: TlsFiles, tmp_path: Path) -> None:
    other = Authority.make(tmp_path / "other")
    servicer = FailingServicer(0)
    async with serving_tls(certificate, servicer) as address:
        for tls in (client_tls(other.file), client_tls(PUBLIC_AUTHORITIES)):
            async with user_channel(address, tls=tls) as channel:
                with pytest.raises(grpc.RpcError) as caught:
                    await stub(channel).Attach(ATTACH, timeout=20)
                assert from_rpc_error(caught.value).reason == errors_pb2.ERROR_REASON_UNAVAILABLE
    assert servicer.calls == 0


async def test_a_call_in_the_clear_is_not_served_by_a_listener_with_tls(certificate: TlsFiles) -> None:
    servicer = FailingServicer(0)
    async with serving_tls(certificate, servicer) as address, user_channel(address) as channel:
        with pytest.raises(grpc.RpcError):
            await stub(channel).Attach(ATTACH, timeout=20)
    assert servicer.calls == 0


async def test_the_servers_of_a_list_have_one_name_in_their_certificates(authority: Authority) -> None:
    servicers = [FailingServicer(0), FailingServicer(0)]
    certificates = [authority.issue(f"server-{number}", "DNS:dispatcher.test") for number in (1, 2)]
    tls = client_tls(authority.file, "dispatcher.test")
    async with (
        serving_tls(certificates[0], servicers[0]) as first,
        serving_tls(certificates[1], servicers[1]) as second,
        user_channel(f"{first},{second}", tls=tls) as channel,
        asyncio.timeout(20),
    ):
        while not all(servicer.calls > 1 for servicer in servicers):
            await stub(channel).Attach(ATTACH, timeout=20)


async def test_a_certificate_with_another_name_is_refused(authority: Authority, certificate: TlsFiles) -> None:
    tls = client_tls(authority.file, "dispatcher.test")
    async with (
        serving_tls(certificate, AioServicer()) as address,
        user_channel(address, tls=tls) as channel,
    ):
        with pytest.raises(grpc.RpcError) as caught:
            await stub(channel).Attach(ATTACH, timeout=20)
        assert from_rpc_error(caught.value).reason == errors_pb2.ERROR_REASON_UNAVAILABLE


async def test_a_list_with_tls_needs_the_name(authority: Authority) -> None:
    with pytest.raises(ValueError, match="which name the certificates"):
        user_channel("10.0.0.1:1,10.0.0.2:1", tls=client_tls(authority.file))


def test_a_certificate_without_its_key_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="together"):
        TlsFiles(certificate=tmp_path / "cert.pem")


async def test_a_unix_socket_serves_without_credentials_and_with_rules(tmp_path: Path) -> None:
    served = unix_aio_server(tmp_path / "operator.sock")
    operator_grpc.add_OperatorServiceServicer_to_server(AioServicer(), served.server)
    address = await served.start()
    assert address == f"unix:{tmp_path}/operator.sock"
    try:
        async with aio_channel(address, token=None, actor_name="") as channel:
            answer = await stub(channel).Attach(operator_pb2.AttachRequest(sdk="nobody"), timeout=20)
            assert answer.secrets["actor"] == "nobody"
            with pytest.raises(grpc.RpcError) as caught:
                await stub(channel).Attach(operator_pb2.AttachRequest(sdk="x" * 256), timeout=20)
            assert from_rpc_error(caught.value).reason == errors_pb2.ERROR_REASON_INVALID_REQUEST
    finally:
        await served.stop(0)
    assert not (tmp_path / "operator.sock").exists()


@pytest.mark.parametrize(
    ("address", "parts"),
    [("[::1]:7401", ("::1", 7401)), (" [2001:db8::2]:1 ", ("2001:db8::2", 1)), ("127.0.0.1:0", ("127.0.0.1", 0))],
)
def test_an_address_is_a_host_and_a_port(address: str, parts: tuple[str, int]) -> None:
    assert split_address(address) == parts


def test_ipv6_has_a_loopback_too_where_credentials_go_without_tls() -> None:
    check_address("[::1]:7401", tls=None)
    check_address("[::1]:7401,[::1]:7402", tls=None)
    with pytest.raises(ValueError, match="only with TLS"):
        check_address("[2001:db8::2]:7401", tls=None)


async def test_a_server_on_ipv6_is_called_and_where_there_is_no_ipv6_that_is_a_failed_call() -> None:
    if _has_ipv6():
        async with serving_aio(AioServicer(), "[::1]:0") as address, user_channel(address) as channel:
            assert address.startswith("[::1]:")
            assert (await stub(channel).Attach(ATTACH, timeout=20)).secrets["actor"] == "user:local"
    else:
        async with user_channel("[::1]:1") as channel:
            with pytest.raises(grpc.RpcError) as caught:
                await stub(channel).Attach(ATTACH, timeout=20)
            assert from_rpc_error(caught.value).reason == errors_pb2.ERROR_REASON_UNAVAILABLE


def _has_ipv6() -> bool:
    """Whether an address can be had, which Python's having been built for it does not say."""
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True
