"""What every call passes, on asyncio and on threads, for all four kinds of call; with real servers and channels."""

import base64
import itertools
import json
import logging
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest
import structlog
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from kernel.channels import sync_channel
from kernel.credentials import Role
from kernel.errors import TraceError, from_rpc_error
from kernel.servers.access import Credential
from tests.kernel.conftest import SERVICE, STYLES, TOKENS
from tests.kernel.scripted_services import CHUNKS, SECRET
from traceapi.operator.v1 import operator_service_pb2 as operator_pb2
from traceapi.operator.v1 import operator_service_pb2_grpc as operator_grpc
from traceapi.types.v1 import errors_pb2

TASK_ID = "0190b7a1-0000-7000-8000-000000000001"
Stub = operator_grpc.OperatorServiceStub
Call = Callable[[Stub], Any]


@pytest.fixture
def user(address: str) -> Iterator[Stub]:
    with sync_channel(address, token=TOKENS[Role.USER], actor_name="local") as channel:
        yield Stub(channel)


def failure(call: Callable[[], Any]) -> TraceError:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return from_rpc_error(caught.value)


def read(stub: Stub, dataset_id: str = "a") -> list[bytes]:
    request = operator_pb2.ReadInputRequest(task_id=TASK_ID, dataset_id=dataset_id)
    return [answer.arrow_ipc for answer in stub.ReadInput(request, timeout=20)]


def write(stub: Stub, *chunks: bytes) -> int:
    requests = iter([operator_pb2.WriteOutputRequest(arrow_ipc=chunk) for chunk in chunks])
    return stub.WriteOutput(requests, timeout=20).size_bytes


def receive(stub: Stub, *credit: int) -> list[int]:
    requests = iter([operator_pb2.ReceiveWorkRequest(credits=number) for number in credit])
    return [answer.units[0].unit_id for answer in stub.ReceiveWork(requests, timeout=20)]


def attach(stub: Stub, sdk: str = "a") -> str:
    return stub.Attach(operator_pb2.AttachRequest(sdk=sdk), timeout=20).secrets["actor"]


FOUR_KINDS: dict[str, Call] = {
    "unary-unary": attach,
    "unary-stream": read,
    "stream-unary": lambda stub: write(stub, b"x"),
    "stream-stream": lambda stub: receive(stub, 1),
}
four_kinds = pytest.mark.parametrize("call", FOUR_KINDS.values(), ids=FOUR_KINDS.keys())


def test_the_four_kinds_of_call_answer(user: Stub) -> None:
    assert attach(user) == "user:local"
    assert read(user) == [b"0", b"1", b"2"]
    assert write(user, b"abc", b"de") == 5
    assert receive(user, 1, 7) == [1, 7]


@four_kinds
def test_a_call_without_credential_is_unauthenticated(plain_channel: grpc.Channel, call: Call) -> None:
    error = failure(lambda: call(Stub(plain_channel)))
    assert (error.reason, error.code) == (
        errors_pb2.ERROR_REASON_UNAUTHENTICATED,
        grpc.StatusCode.UNAUTHENTICATED,
    )


def _basic(*parts: str) -> str:
    return base64.b64encode(":".join(parts).encode()).decode()


@pytest.mark.parametrize(
    "values",
    [
        ["Bearer wrong-token-0123456789"],
        ["Bearer alice wrong-token-0123456789"],
        [f"Bearer {TOKENS[Role.USER]} alice"],
        [f"Basic {TOKENS[Role.USER]}"],
        [f"Basic {_basic('', 'wrong-token-0123456789')}"],
        [f"Basic {_basic('alice')}"],
        ["Basic /w=="],
        [TOKENS[Role.USER]],
        [""],
        [f"Bearer {TOKENS[Role.USER]}", f"Bearer {TOKENS[Role.USER]}"],
    ],
)
def test_a_credential_in_another_form_is_unauthenticated(plain_channel: grpc.Channel, values: list[str]) -> None:
    metadata = tuple(("authorization", value) for value in values)
    error = failure(lambda: Stub(plain_channel).Attach(operator_pb2.AttachRequest(), timeout=20, metadata=metadata))
    assert error.reason == errors_pb2.ERROR_REASON_UNAUTHENTICATED
    assert TOKENS[Role.USER] not in error.message


@pytest.mark.parametrize("padded", [True, False])
def test_the_token_may_be_the_password_of_a_login(plain_channel: grpc.Channel, padded: bool) -> None:
    """As drivers of databases log in; the name is the actor's, where no other is given."""
    login = _basic("alice", TOKENS[Role.USER])
    metadata = (("authorization", f"Basic {login if padded else login.rstrip('=')}"),)
    answer = Stub(plain_channel).Attach(operator_pb2.AttachRequest(sdk="a"), timeout=20, metadata=metadata)
    assert answer.secrets["actor"] == "user:alice"


@pytest.mark.parametrize("name", ["", "alice"])
def test_a_login_can_be_carried_as_a_bearer(plain_channel: grpc.Channel, name: str) -> None:
    """As drivers send it once they have logged in: for them it is one word that they were told."""
    metadata = (("authorization", Credential(TOKENS[Role.USER], name).bearer),)
    answer = Stub(plain_channel).Attach(operator_pb2.AttachRequest(sdk="a"), timeout=20, metadata=metadata)
    assert answer.secrets["actor"] == f"user:{name or 'unnamed'}"


def test_strangers_cannot_learn_which_methods_exist(plain_channel: grpc.Channel) -> None:
    unknown: Any = plain_channel.unary_unary("/no.such.Service/Method")
    assert failure(lambda: unknown(b"", timeout=20)).reason == errors_pb2.ERROR_REASON_UNAUTHENTICATED


def test_an_unknown_method_is_not_implemented(plain_channel: grpc.Channel) -> None:
    unknown: Any = plain_channel.unary_unary(f"{SERVICE}/NoSuchMethod")
    credential = (("authorization", f"Bearer {TOKENS[Role.USER]}"),)
    error = failure(lambda: unknown(b"", timeout=20, metadata=credential))
    assert error.reason == errors_pb2.ERROR_REASON_NOT_IMPLEMENTED


def test_the_bytes_of_strangers_are_not_parsed(plain_channel: grpc.Channel) -> None:
    unparseable: Any = plain_channel.unary_unary(f"{SERVICE}/Attach")
    assert failure(lambda: unparseable(b"\xff\xff", timeout=20)).reason == errors_pb2.ERROR_REASON_UNAUTHENTICATED


@four_kinds
def test_a_role_may_call_only_what_the_policy_lists(address: str, call: Call) -> None:
    with sync_channel(address, token=TOKENS[Role.WORKER], actor_name="w1") as channel:
        error = failure(lambda: call(Stub(channel)))
    assert error.reason == errors_pb2.ERROR_REASON_PERMISSION_DENIED
    assert error.metadata["role"] == "worker"


def test_a_policy_may_list_single_methods(address: str) -> None:
    with sync_channel(address, token=TOKENS[Role.QUERYD], actor_name="q") as channel:
        assert attach(Stub(channel)) == "queryd:q"
        assert failure(lambda: read(Stub(channel))).reason == errors_pb2.ERROR_REASON_PERMISSION_DENIED


def test_the_actor_is_that_of_the_call_and_not_of_an_earlier_one(address: str) -> None:
    for name in ("first", "second", ""):
        with sync_channel(address, token=TOKENS[Role.USER], actor_name=name) as channel:
            assert attach(Stub(channel)) == f"user:{name or 'unnamed'}"


@pytest.mark.parametrize("name", ["has space", "a:b", ".hidden", "x" * 129])
def test_an_actor_name_in_another_form_is_refused(address: str, name: str) -> None:
    with sync_channel(address, token=TOKENS[Role.USER], actor_name=name) as channel:
        error = failure(lambda: attach(Stub(channel)))
    assert error.reason == errors_pb2.ERROR_REASON_INVALID_REQUEST
    assert [violation.field for violation in error.violations] == ["trace-actor-name"]


def test_all_violations_of_a_request_are_listed(user: Stub) -> None:
    request = operator_pb2.ReadInputRequest(task_id="no uuid", dataset_id="")
    error = failure(lambda: list(user.ReadInput(request, timeout=20)))
    assert (error.reason, error.code) == (
        errors_pb2.ERROR_REASON_INVALID_REQUEST,
        grpc.StatusCode.INVALID_ARGUMENT,
    )
    assert [violation.field for violation in error.violations] == ["task_id", "dataset_id"]
    assert all(violation.description for violation in error.violations)
    assert "task_id" in error.message


def test_a_thousand_violations_are_listed_too(user: Stub) -> None:
    emits = [operator_pb2.UnitEmit(events=[operator_pb2.OperatorEvent()]) for _ in range(300)]
    error = failure(lambda: user.Emit(operator_pb2.EmitRequest(emits=emits), timeout=20))
    assert len(error.violations) >= 900
    assert error.violations[-1].field.startswith("emits[299].events[0].")


def test_every_message_of_a_stream_is_checked(user: Stub) -> None:
    requests = [operator_pb2.WriteOutputRequest(arrow_ipc=b"x"), operator_pb2.WriteOutputRequest()]
    error = failure(lambda: user.WriteOutput(iter(requests), timeout=20))
    assert error.reason == errors_pb2.ERROR_REASON_INVALID_REQUEST
    assert [violation.field for violation in error.violations] == ["message"]


def test_answers_before_a_bad_message_of_a_stream_arrive(user: Stub) -> None:
    answers = user.ReceiveWork(iter([operator_pb2.ReceiveWorkRequest(credits=number) for number in (5, 1001)]))
    assert next(answers).units[0].unit_id == 5
    assert failure(lambda: next(answers)).reason == errors_pb2.ERROR_REASON_INVALID_REQUEST


SCRIPTED: dict[str, Callable[[Stub, str], Any]] = {
    "unary-unary": attach,
    "unary-stream": read,
    "stream-unary": lambda stub, script: write(stub, script.encode()),
}
scripted = pytest.mark.parametrize("call", SCRIPTED.values(), ids=SCRIPTED.keys())


@scripted
def test_a_refusal_arrives_whole(user: Stub, call: Callable[[Stub, str], Any]) -> None:
    error = failure(lambda: call(user, "refuse"))
    assert (error.reason, error.code) == (errors_pb2.ERROR_REASON_OVERLOADED, grpc.StatusCode.RESOURCE_EXHAUSTED)
    assert error.message == "queue is full – später"
    assert error.metadata == {"queue": "emit"}
    assert [(violation.field, violation.description) for violation in error.violations] == [
        ("items[0]", "one too many")
    ]
    assert error.retry_after == 30.0


@scripted
def test_a_defect_is_internal_and_says_nothing_of_itself(user: Stub, call: Callable[[Stub, str], Any]) -> None:
    with structlog.testing.capture_logs() as logs:
        error = failure(lambda: call(user, "crash"))
    assert (error.reason, error.code) == (errors_pb2.ERROR_REASON_INTERNAL, grpc.StatusCode.INTERNAL)
    assert SECRET not in repr(error) + json.dumps(error.metadata)
    assert error.metadata["error_id"] in error.message
    assert [entry["error_id"] for entry in logs] == [error.metadata["error_id"]]
    assert SECRET in repr(logs[0]["exc_info"])


def test_a_defect_in_a_stream_of_both_ways_is_internal(user: Stub) -> None:
    error = failure(lambda: receive(user, 1, 13))
    assert error.reason == errors_pb2.ERROR_REASON_INTERNAL
    assert SECRET not in error.message


def test_answers_before_a_failure_arrive(user: Stub) -> None:
    request = operator_pb2.ReadInputRequest(task_id=TASK_ID, dataset_id="refuse")
    answers = user.ReadInput(request, timeout=20)
    assert len(list(itertools.islice(answers, CHUNKS))) == CHUNKS
    assert failure(lambda: next(answers)).reason == errors_pb2.ERROR_REASON_OVERLOADED


def test_a_refusal_within_a_group_of_tasks_is_that_refusal(user: Stub) -> None:
    assert failure(lambda: attach(user, "taskgroup")).reason == errors_pb2.ERROR_REASON_STALE_LEASE


def test_a_group_with_a_defect_among_refusals_is_internal(user: Stub) -> None:
    error = failure(lambda: attach(user, "mixedgroup"))
    assert error.reason == errors_pb2.ERROR_REASON_INTERNAL
    assert SECRET not in error.message


def test_a_status_that_a_servicer_sets_itself_stays(user: Stub) -> None:
    with structlog.testing.capture_logs() as logs, pytest.raises(grpc.RpcError) as caught:
        attach(user, "abort")
    assert (caught.value.code(), caught.value.details()) == (grpc.StatusCode.OUT_OF_RANGE, "said by the servicer")
    assert logs == []


def test_a_call_that_the_server_does_not_serve_is_not_implemented(user: Stub) -> None:
    request = operator_pb2.WriteLogRequest()
    assert failure(lambda: user.WriteLog(request, timeout=20)).reason == errors_pb2.ERROR_REASON_NOT_IMPLEMENTED


def test_a_message_above_the_limit_is_too_large(user: Stub) -> None:
    lines = [operator_pb2.OperatorLogLine(text="x" * (17 << 20))]
    error = failure(lambda: user.WriteLog(operator_pb2.WriteLogRequest(lines=lines), timeout=20))
    assert error.reason == errors_pb2.ERROR_REASON_MESSAGE_TOO_LARGE


@pytest.mark.parametrize("service", ["", "traceapi.operator.v1.OperatorService", "grpc.health.v1.Health"])
def test_health_needs_no_credential(plain_channel: grpc.Channel, service: str) -> None:
    stub: Any = health_pb2_grpc.HealthStub(plain_channel)
    answer = stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=20)
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


def test_watching_health_needs_a_credential(plain_channel: grpc.Channel) -> None:
    stub: Any = health_pb2_grpc.HealthStub(plain_channel)
    watch = stub.Watch(health_pb2.HealthCheckRequest(), timeout=20)
    assert failure(lambda: next(watch)).reason == errors_pb2.ERROR_REASON_UNAUTHENTICATED


def test_reflection_needs_a_credential_of_any_role(address: str, plain_channel: grpc.Channel) -> None:
    with sync_channel(address, token=TOKENS[Role.WORKER], actor_name="w1") as channel:
        services = ProtoReflectionDescriptorDatabase(channel).get_services()
    assert "traceapi.operator.v1.OperatorService" in services
    refused = failure(lambda: ProtoReflectionDescriptorDatabase(plain_channel).get_services())
    assert refused.reason == errors_pb2.ERROR_REASON_UNAUTHENTICATED


@pytest.mark.parametrize("style", sorted(STYLES))
def test_a_caller_that_leaves_a_stream_is_no_defect(style: str, caplog: pytest.LogCaptureFixture) -> None:
    with (
        structlog.testing.capture_logs() as logs,
        caplog.at_level(logging.ERROR),
        STYLES[style]() as address,
        sync_channel(address, token=TOKENS[Role.USER], actor_name="local") as channel,
    ):
        endless = (operator_pb2.ReceiveWorkRequest(credits=1) for _ in itertools.count())
        answers = Stub(channel).ReceiveWork(endless, timeout=20)
        next(answers)
        answers.cancel()
    assert (logs, caplog.records) == ([], [])


def test_messages_are_what_the_stubs_say() -> None:
    """The scripted calls above stand for the four kinds only as long as the contract keeps them."""
    kinds = {method.name: (method.client_streaming, method.server_streaming) for method in _service().methods}
    assert [kinds[name] for name in ("Attach", "ReadInput", "WriteOutput", "ReceiveWork")] == [
        (False, False),
        (False, True),
        (True, False),
        (True, True),
    ]
    assert issubclass(operator_pb2.AttachRequest, Message)


def _service() -> Any:
    return operator_pb2.DESCRIPTOR.services_by_name["OperatorService"]
