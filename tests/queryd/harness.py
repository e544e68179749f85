"""A queryd as a process, and a client for it."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import grpc
import pyarrow as pa
import pytest

from kernel.channels import sync_channel
from kernel.credentials import Role, TokenVerifier, create_token_file, token_digest
from kernel.errors import TraceError, from_rpc_error
from kernel.servers import AccessPolicy, SyncServer, sync_server
from queryd.engine.slots import MAX_ARROW_BYTES
from tests.queryd.fake_datasets import FakeDatasets
from traceapi.control.v1.dataset_service_pb2_grpc import add_DatasetServiceServicer_to_server
from traceapi.query.v1 import query_service_pb2 as pb
from traceapi.query.v1.query_service_pb2_grpc import QueryServiceStub
from traceapi.types.v1.dataset_pb2 import Pin
from traceapi.types.v1.errors_pb2 import ErrorReason

_START_SECONDS = 60.0
_SERVICE = "/traceapi.control.v1.DatasetService/"
# What the contract gives to the role; anything else that queryd tried would be refused.
_POLICY = AccessPolicy(
    {
        Role.QUERYD: frozenset(
            _SERVICE + name
            for name in ("ListDatasets", "PinDatasets", "ResolveDatasets", "RenewPin", "ReleasePin", "RecordQueries")
        )
    }
)


@dataclass
class Answer:
    """What a query answered."""

    started: pb.QueryStarted
    table: pa.Table
    finished: pb.QueryFinished
    parts: int

    @property
    def rows(self) -> list[dict[str, Any]]:
        return self.table.to_pylist()

    @property
    def values(self) -> list[tuple[Any, ...]]:
        return [tuple(row.values()) for row in self.rows]


@dataclass
class Client:
    """A user's client of QueryService. Failures are TraceErrors."""

    channel: grpc.Channel
    stub: QueryServiceStub = field(init=False)

    def __post_init__(self) -> None:
        self.stub = QueryServiceStub(self.channel)

    def query(self, sql: str, *, timeout: float = 30, **fields: Any) -> Answer:
        request = pb.QueryRequest(sql=sql, **fields)
        request.timeout.FromMilliseconds(round(timeout * 1000))
        try:
            return _answer(list(self.stub.Query(request, timeout=timeout + 30)))
        except grpc.RpcError as error:
            raise from_rpc_error(error) from error

    def refused(self, sql: str, **fields: Any) -> TraceError:
        """The error of a query that must fail."""
        with pytest.raises(TraceError) as caught:
            self.query(sql, **fields)
        return caught.value

    def as_of(self, sql: str, pin: Pin) -> Answer:
        return self.query(sql, pin=pin)


def _answer(messages: list[pb.QueryResponse]) -> Answer:
    assert messages[0].WhichOneof("message") == "started"
    assert messages[-1].WhichOneof("message") == "finished"
    parts = [message.arrow_ipc for message in messages[1:-1]]
    assert all(0 < len(part) <= MAX_ARROW_BYTES for part in parts)
    data = b"".join(parts)
    table = pa.ipc.open_stream(data).read_all()
    table.validate(full=True)
    finished = messages[-1].finished
    assert (finished.row_count, finished.arrow_bytes) == (table.num_rows, len(data))
    return Answer(messages[0].started, table, finished, len(parts))


class QuerydProcess:
    """`python -m queryd.main`, or another program, on free ports, with its DatasetService served by the test."""

    def __init__(
        self, home: Path, datasets: FakeDatasets, program: Sequence[str] = ("-m", "queryd.main"), **settings: str
    ) -> None:
        self.datasets = datasets
        self.home = home
        self.user_token = create_token_file(home / "user.token")
        self._dispatcher, address = _serve(home, datasets)
        ready = home / "ready.json"
        self.log = home / "queryd.log"
        environment: Mapping[str, str] = {
            "PATH": os.environ["PATH"],
            "TRACE_DISPATCHER_ADDRESS": address,
            "TRACE_QUERYD_TOKEN_FILE": str(home / "queryd.token"),
            "TRACE_QUERY_LISTEN": "127.0.0.1:0",
            "TRACE_USER_TOKEN_SHA256": token_digest(self.user_token),
            "TRACE_ARTIFACTS": datasets.store_url,
            "TRACE_READY_FILE": str(ready),
            "TRACE_QUERY_MEMORY_BYTES": str(512 << 20),
            "TRACE_QUERY_WARM_CELLS": "2",
            **{name: value for name, value in os.environ.items() if name.startswith("AWS_")},
            **{f"TRACE_{name.upper()}": value for name, value in settings.items()},
        }
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, *program], env=environment, stderr=log, stdout=subprocess.PIPE
            )
        self.address = _ready(self.process, ready, self.log)

    def client(self, token: str | None = None) -> Client:
        return Client(sync_channel(self.address, token=token or self.user_token, actor_name="tester"))

    def engine_processes(self, *, count: int) -> set[int]:
        """The Python processes of queries and of those kept ready, once there are at least `count`."""
        for _ in range(int(_START_SECONDS / 0.05)):
            found = {pid for pid in _descendants(self.process.pid) if _runs_python(pid)}
            if len(found) >= count:
                return found
            self._pause()
        raise AssertionError(f"there are not {count} cells: {self.log.read_text()}")

    def _pause(self) -> None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(0.05)

    def stop(self) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(60)
        self._dispatcher.stop(0)
        return code

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.stop()
        finally:
            self.process.kill()


def _serve(home: Path, datasets: FakeDatasets) -> tuple[SyncServer, str]:
    token = create_token_file(home / "queryd.token")
    server = sync_server(
        listen="127.0.0.1:0", verifier=TokenVerifier({Role.QUERYD: token_digest(token)}), policy=_POLICY
    )
    add_DatasetServiceServicer_to_server(datasets, server.server)
    return server, server.start()


def _ready(process: "subprocess.Popen[bytes]", ready: Path, log: Path) -> str:
    """Waits for the ready file, or the process's end."""
    for _ in range(int(_START_SECONDS / 0.05)):
        if ready.exists():
            address: str = json.loads(ready.read_text())["query"]
            return address
        try:
            process.wait(0.05)
        except subprocess.TimeoutExpired:
            continue
        break
    raise AssertionError(f"queryd did not start: {log.read_text()}")


def _descendants(pid: int) -> Iterator[int]:
    for task in Path(f"/proc/{pid}/task").glob("*"):
        try:
            children = (task / "children").read_text().split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        for child in map(int, children):
            yield child
            yield from _descendants(child)


def _runs_python(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/exe").readlink().name.startswith("python")
    except (FileNotFoundError, ProcessLookupError):
        return False


def reason(error: TraceError) -> str:
    """The reason's name, for assertions that read well."""
    return ErrorReason.Name(error.reason).removeprefix("ERROR_REASON_")
