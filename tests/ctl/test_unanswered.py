"""Programs that hang, or are not there: who it is, where, how long it was waited for, and what to do."""

import json
import re
import socket
import threading
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path

import grpc
import pytest

from ctl import query_stream, stack_status
from ctl.commands import task
from ctl.connection import Connection, connect
from ctl.errors import CtlError, ExitCode
from ctl.home import Endpoints, Home
from kernel.credentials import create_token_file
from kernel.errors import TraceError, from_rpc_error
from tests.ctl.canned import Canned
from tests.ctl.conftest import Run
from traceapi.control.v1 import dag_service_pb2 as dags
from traceapi.types.v1 import errors_pb2


@pytest.fixture
def mute() -> Iterator[str]:
    """The address of a listener whose connections the kernel takes, and nobody serves: a program that stands still."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield f"127.0.0.1:{listener.getsockname()[1]}"


@pytest.fixture
def hanging() -> Iterator[str]:
    """The address of a gRPC server that takes calls and answers none of them."""
    ended = threading.Event()

    class _Hangs(grpc.GenericRpcHandler):
        def service(self, details: grpc.HandlerCallDetails) -> "grpc.RpcMethodHandler[bytes, bytes]":
            def wait(request: bytes, context: grpc.ServicerContext) -> bytes:
                ended.wait(60)
                return b""

            return grpc.unary_unary_rpc_method_handler(wait)

    server = grpc.server(futures.ThreadPoolExecutor(4), handlers=[_Hangs()])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    ended.set()
    server.stop(None).wait()


def reach(folder: Path, control: str, query: str = "127.0.0.1:1") -> Connection:
    home = Home.at(folder)
    create_token_file(home.token_file("user"))
    home.endpoints_file.write_text(Endpoints(control, control, query, (), home.token_file("user")).to_json())
    return connect(folder)


@pytest.mark.parametrize("kind", ["mute", "hanging"])
def test_a_program_that_hangs_is_named_with_the_time_it_was_waited_for(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    address = request.getfixturevalue(kind)
    with reach(tmp_path, address) as connection, pytest.raises(CtlError) as caught, connection.errors("DAG ethereum"):
        connection.dags.ListDags(dags.ListDagsRequest(), timeout=0.3)
    assert re.fullmatch(rf"the dispatcher at {address} has not answered within \d+\.\d s", caught.value.message)
    assert f"tracectl status --home {tmp_path}" in caught.value.remedy
    assert f"tracectl down --home {tmp_path}; tracectl up --home {tmp_path}" in caught.value.remedy
    assert (caught.value.where, caught.value.exit_code) == ("DAG ethereum", ExitCode.UNREACHABLE)


def test_one_that_takes_connections_only_is_told_from_one_that_is_gone(mute: str, tmp_path: Path) -> None:
    """Before its deadline grpc gives a connection up on which nothing is said: that is an address in use, not a free
    one."""
    with reach(tmp_path, mute) as connection, pytest.raises(CtlError) as caught, connection.errors():
        connection.dags.ListDags(dags.ListDagsRequest(), timeout=30)
    assert f"the dispatcher at {mute} has not answered within" in caught.value.message
    assert "takes connections and says nothing" in caught.value.message


def test_where_nothing_listens_that_is_said(tmp_path: Path) -> None:
    with reach(tmp_path, "127.0.0.1:1") as connection, pytest.raises(CtlError) as caught, connection.errors():
        connection.dags.ListDags(dags.ListDagsRequest(), timeout=20)
    assert caught.value.message == "the dispatcher at 127.0.0.1:1 cannot be reached: nothing listens there"
    assert caught.value.exit_code == ExitCode.UNREACHABLE


def test_a_stream_that_nobody_answers_is_named_too(
    hanging: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(query_stream, "_MARGIN_SECONDS", 0.2)
    with (
        reach(tmp_path, "127.0.0.1:1", hanging) as connection,
        pytest.raises(CtlError, match=f"queryd at {hanging} has not answered within"),
        connection.errors(),
        query_stream.QueryStream(connection, "select 1", timeout=0.1) as stream,
    ):
        stream.schema()


def test_commands_say_so(run: Run, canned: Canned, mute: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "home" / "endpoints.json"
    document = json.loads(file.read_text()) | {"control": mute}
    file.write_text(json.dumps(document))
    monkeypatch.setattr(task, "CALL_SECONDS", 0.3)
    monkeypatch.setattr(stack_status, "_SECONDS", 0.3)
    listed = run("task", "ls")
    assert listed.exit_code == 3
    assert f"error: the dispatcher at {mute} has not answered" in listed.stderr
    status = run("status")
    assert status.exit_code == 1
    assert f"the dispatcher at {mute} has not answered" in status.stdout
    assert "not known: the dispatcher does not answer" in status.stdout
    assert json.loads(run("status", "--output", "json").stdout)["taskCounts"] is None
    for said in (listed, status):
        assert "Deadline" not in said.output
        assert "failed to connect" not in said.output


def test_what_a_server_answered_stays_as_it_is(canned: Canned, tmp_path: Path) -> None:
    with connect(tmp_path / "home") as connection, pytest.raises(grpc.RpcError) as caught:
        connection.dags.GetDag(dags.GetDagRequest(dag="none"), timeout=20)
    found: TraceError = from_rpc_error(caught.value)
    assert (found.reason, found.message) == (errors_pb2.ERROR_REASON_DAG_NOT_FOUND, "no DAG is called 'none'")
