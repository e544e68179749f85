"""A query that nobody wants any more frees the processor: its process has ended a second after that was said, at most.

The process is killed and asked nothing, which takes milliseconds: the bound, which is the promise itself, is missed
where something is waited for.
"""

import os
import select
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from kernel.errors import from_rpc_error
from kernel.ids import new_id
from tests.queryd.flight.clients import FlightClient
from tests.queryd.harness import Client, QuerydProcess
from traceapi.query.v1 import query_service_pb2 as pb

_ENDLESS = "select count(*) from range(1_000_000_000) a, range(1_000_000) b, plain where a.range + b.range < 0"
_PROMISED_SECONDS = 1.0
_BUSY_TICKS = 10
_PATIENCE_SECONDS = 60.0


@contextmanager
def _one_is_freed(queryd: QuerydProcess) -> Iterator[Callable[[], None]]:
    """Of the cells that are ready when the block begins. What it gives returns when one of them is at work; in the
    block's last step it is said that its query is not wanted."""
    cells = queryd.engine_processes(count=2)
    before = {pid: _ticks(pid) for pid in cells}
    found: list[int] = []

    def at_work() -> None:
        with select.epoll() as pause:
            for _ in range(int(_PATIENCE_SECONDS / 0.05)):
                found[:] = [pid for pid in cells if _ticks(pid) - before[pid] >= _BUSY_TICKS]
                if found:
                    found.append(os.pidfd_open(found[0]))
                    return
                pause.poll(0.05)
        raise AssertionError("no cell is at work")

    yield at_work
    descriptor = found[-1]
    try:
        assert select.select([descriptor], [], [], _PROMISED_SECONDS)[0], "the query's process goes on"
    finally:
        os.close(descriptor)


def _ticks(pid: int) -> int:
    """Of the processor's time that it has taken; 0 for one that is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return int(fields[11]) + int(fields[12])


def _called(client: Client, query_id: str = "") -> Any:
    request = pb.QueryRequest(sql=_ENDLESS, query_id=query_id)
    request.timeout.FromSeconds(300)
    return client.stub.Query(request, timeout=300)


def test_when_it_is_cancelled(queryd: QuerydProcess, client: Client) -> None:
    query_id = new_id()
    with _one_is_freed(queryd) as at_work:
        call = _called(client, query_id)
        at_work()
        client.stub.CancelQuery(pb.CancelQueryRequest(query_id=query_id))
    with pytest.raises(grpc.RpcError) as caught:
        list(call)
    assert from_rpc_error(caught.value).reason_name == "QUERY_CANCELED"


@pytest.mark.parametrize("way", ["cancel", "cancel_as_before"])
def test_when_it_is_cancelled_by_its_flight_info(queryd: QuerydProcess, way: str) -> None:
    flights = FlightClient(queryd)
    with _one_is_freed(queryd) as at_work:
        info = flights.info(_ENDLESS.encode())
        at_work()
        assert getattr(flights, way)(info).endswith("_CANCELLED")


def test_when_its_call_is_given_up(queryd: QuerydProcess, client: Client) -> None:
    with _one_is_freed(queryd) as at_work:
        call = _called(client)
        at_work()
        call.cancel()


def test_when_its_client_is_gone(queryd: QuerydProcess) -> None:
    """Without a word: the connection breaks."""
    program = """
import sys
import pyarrow.flight as flight
headers = flight.FlightCallOptions(headers=[(b"authorization", f"Bearer {sys.stdin.readline().strip()}".encode())])
flight.FlightClient(f"grpc://{sys.argv[1]}").do_get(flight.Ticket(sys.argv[2].encode()), headers).read_chunk()
"""
    command = [sys.executable, "-c", program, queryd.address, _ENDLESS]
    with _one_is_freed(queryd) as at_work, subprocess.Popen(command, stdin=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdin is not None
            process.stdin.write(f"{queryd.user_token}\n")
            process.stdin.flush()
            at_work()
        finally:
            process.kill()
