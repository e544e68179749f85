"""Two listeners, three roles: who may call what, and that nobody else may."""

from collections.abc import AsyncIterator

import grpc
import pytest

from kernel.channels import aio_channel
from kernel.errors import from_rpc_error
from tests.dispatcher.in_process import QUERYD, USER, WORKER, InProcess
from traceapi.control.v1 import (
    dag_service_pb2,
    dataset_service_pb2,
    effect_service_pb2,
    source_service_pb2,
    task_service_pb2,
)
from traceapi.worker.v1 import worker_service_pb2

CONTROL = [
    (service.full_name, method.name, method.client_streaming, method.server_streaming)
    for module in (dag_service_pb2, dataset_service_pb2, effect_service_pb2, source_service_pb2, task_service_pb2)
    for service in module.DESCRIPTOR.services_by_name.values()
    for method in service.methods
]
INTERNAL = [
    (service.full_name, method.name, method.client_streaming, method.server_streaming)
    for service in worker_service_pb2.DESCRIPTOR.services_by_name.values()
    for method in service.methods
]
QUERYD_MAY = {"ListDatasets", "PinDatasets", "ResolveDatasets", "RenewPin", "ReleasePin", "RecordQueries"}


async def _reason(address: str, token: str | None, call: tuple[str, str, bool, bool]) -> str:
    """What a call with an empty message is refused for."""
    service, name, client_streams, server_streams = call
    path = f"/{service}/{name}"
    async with aio_channel(address, token=token, actor_name="somebody") as channel:
        try:
            if client_streams and server_streams:
                async for _ in channel.stream_stream(path, request_serializer=bytes)(_one()):
                    pass
            elif client_streams:
                await channel.stream_unary(path, request_serializer=bytes)(_one())
            elif server_streams:
                async for _ in channel.unary_stream(path, request_serializer=bytes)(b""):
                    pass
            else:
                await channel.unary_unary(path, request_serializer=bytes)(b"")
        except grpc.aio.AioRpcError as error:
            return from_rpc_error(error).reason_name
        return "OK"


async def _one() -> AsyncIterator[bytes]:
    yield b""


@pytest.mark.parametrize("token", [None, "x" * 32], ids=["no token", "wrong token"])
async def test_without_a_credential_nothing_answers(dispatcher: InProcess, token: str | None) -> None:
    for listener, calls in (("control", CONTROL), ("internal", INTERNAL)):
        found = {call[1]: await _reason(dispatcher.addresses[listener], token, call) for call in calls}
        assert set(found.values()) == {"UNAUTHENTICATED"}, found


async def test_a_workers_credential_is_not_one_of_the_control_listener(dispatcher: InProcess) -> None:
    found = {call[1]: await _reason(dispatcher.addresses["control"], WORKER, call) for call in CONTROL}
    assert set(found.values()) == {"UNAUTHENTICATED"}, found


@pytest.mark.parametrize("token", [USER, QUERYD], ids=["user", "queryd"])
async def test_only_a_workers_credential_is_one_of_the_internal_listener(dispatcher: InProcess, token: str) -> None:
    found = {call[1]: await _reason(dispatcher.addresses["internal"], token, call) for call in INTERNAL}
    assert set(found.values()) == {"UNAUTHENTICATED"}, found


async def test_queryd_may_pin_resolve_and_record_and_nothing_else(dispatcher: InProcess) -> None:
    found = {call[1]: await _reason(dispatcher.addresses["control"], QUERYD, call) for call in CONTROL}
    assert {name for name, reason in found.items() if reason != "PERMISSION_DENIED"} == QUERYD_MAY


async def test_a_user_may_call_everything_of_the_control_listener_but_say_what_was_asked(dispatcher: InProcess) -> None:
    found = {call[1]: await _reason(dispatcher.addresses["control"], USER, call) for call in CONTROL}
    assert found.pop("RecordQueries") == "PERMISSION_DENIED"
    assert not {"UNAUTHENTICATED", "PERMISSION_DENIED", "INTERNAL"} & set(found.values()), found
