"""How a query is stopped: by its time, its memory, its rows, its user, its client's going away, the loss of its pin."""

import os
import select
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pyarrow as pa
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from kernel.errors import from_rpc_error
from tests.queryd.fake_datasets import FakeDatasets
from tests.queryd.harness import Client, QuerydProcess, reason
from traceapi.query.v1 import query_service_pb2 as pb

_ENDLESS = "select count(*) from range(1_000_000_000) a, range(1_000_000) b, plain where a.range + b.range < 0"
_LARGE = "select i, repeat('x', 20) as filler from range(1_000_000_000) t(i)"
_ID = "0192b0c4-0000-7000-8000-00000000000{}"
_SECONDS = 30.0


def _started(client: Client, sql: str, query_id: str = "", timeout: float = 120) -> "grpc.Call":
    """The call of a query that has begun."""
    request = pb.QueryRequest(sql=sql, query_id=query_id)
    request.timeout.FromMilliseconds(round(timeout * 1000))
    call = client.stub.Query(request, timeout=timeout + 60)
    assert next(call).HasField("started")
    return call


def _end(call: "grpc.Call") -> str:
    """The reason with which a call ends."""
    try:
        for _ in call:  # type: ignore[attr-defined]
            pass
    except grpc.RpcError as error:
        return reason(from_rpc_error(error))
    return "OK"


@contextmanager
def _one_cell_dies(queryd: QuerydProcess) -> Iterator[None]:
    """Of the cells that are ready when the block begins, one process has ended soon after it."""
    cells = queryd.engine_processes(count=2)
    descriptors = {os.pidfd_open(pid): pid for pid in cells}
    try:
        yield
        assert select.select(list(descriptors), [], [], _SECONDS)[0], "no cell has ended"
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


def test_a_query_is_stopped_at_its_time_limit(client: Client, queryd: QuerydProcess) -> None:
    with _one_cell_dies(queryd):
        error = client.refused(_ENDLESS, timeout=1)
    assert (reason(error), error.metadata["limit"]) == ("QUERY_LIMIT", "time")
    assert "1 s" in error.message


def test_a_cancelled_query_ends_at_once_and_its_process_too(client: Client, queryd: QuerydProcess) -> None:
    query_id = _ID.format(1)
    with _one_cell_dies(queryd):
        call = _started(client, _ENDLESS, query_id)
        (running,) = client.stub.ListQueries(pb.ListQueriesRequest()).queries
        assert (running.query_id, running.actor, running.sql) == (query_id, "user:tester", _ENDLESS)
        client.stub.CancelQuery(pb.CancelQueryRequest(query_id=query_id))
        assert _end(call) == "QUERY_CANCELED"
    with pytest.raises(grpc.RpcError) as caught:
        client.stub.CancelQuery(pb.CancelQueryRequest(query_id=query_id))
    assert reason(from_rpc_error(caught.value)) == "QUERY_NOT_FOUND"


def test_a_client_that_goes_away_stops_its_query(client: Client, queryd: QuerydProcess, datasets: FakeDatasets) -> None:
    with _one_cell_dies(queryd):
        _started(client, _ENDLESS).cancel()
    datasets.wait_released()


@pytest.mark.parametrize(
    "sql",
    [
        "select length(repeat('x', 3_000_000_000))",
        "select max(length(repeat('x', 300_000_000) || i)) from range(100) t(i)",
        "select list(i) from range(1_000_000_000) t(i)",
    ],
)
def test_memory_is_bounded(client: Client, sql: str) -> None:
    error = client.refused(sql, timeout=60)
    assert (reason(error), error.metadata["limit"]) == ("QUERY_LIMIT", "memory")


def test_rows_are_bounded(client: Client) -> None:
    error = client.refused("select * from range(1000)", max_rows=999)
    assert (reason(error), error.metadata["limit"]) == ("QUERY_LIMIT", "rows")
    assert client.query("select * from range(1000)", max_rows=1000).table.num_rows == 1000


def test_bytes_are_bounded(client: Client) -> None:
    error = client.refused("select range from range(10_000)", max_bytes=80_000)
    assert (reason(error), error.metadata["limit"]) == ("QUERY_LIMIT", "bytes")
    assert "more than 80,000 bytes" in error.message
    assert client.query("select range from range(10_000)", max_bytes=90_000).table.num_rows == 10_000


def test_no_caller_has_more_bytes_than_the_server_gives(tmp_path: Path) -> None:
    datasets = FakeDatasets(tmp_path / "artifacts")
    with QuerydProcess(tmp_path, datasets, query_warm_cells="1", query_max_bytes="80000") as queryd:
        client = queryd.client()
        with client.channel:
            for fields in ({}, {"max_bytes": 1_000_000}):
                assert client.refused("select range from range(10_000)", **fields).metadata["limit"] == "bytes"


def test_two_queries_never_share_an_id(client: Client) -> None:
    call = _started(client, _ENDLESS, _ID.format(2))
    assert reason(client.refused("select 1", query_id=_ID.format(2))) == "INVALID_REQUEST"
    call.cancel()


def test_slow_readers_take_no_memory_and_leave_room_for_health_and_cancel(
    client: Client, queryd: QuerydProcess
) -> None:
    before = _resident(queryd.process.pid)
    calls = [_started(client, _LARGE, _ID.format(number)) for number in range(3, 7)]
    error = client.refused("select 1")
    assert (reason(error), error.retry_after) == ("OVERLOADED", 1.0)
    _wait_until_stalled(client)
    assert _resident(queryd.process.pid) - before < 64 << 20
    health: Any = health_pb2_grpc.HealthStub(client.channel)
    answer = health.Check(health_pb2.HealthCheckRequest(), timeout=5)
    assert answer.status == health_pb2.HealthCheckResponse.SERVING
    for number, call in enumerate(calls, start=3):
        client.stub.CancelQuery(pb.CancelQueryRequest(query_id=_ID.format(number)), timeout=5)
        assert _end(call) == "QUERY_CANCELED"
    assert client.query("select 1").values == [(1,)]


def test_queries_wait_for_a_place_in_their_order(tmp_path: Path, datasets: FakeDatasets) -> None:
    """One runs, two wait, a fourth is told to come again; of those that wait one is cancelled, and one times out."""
    with QuerydProcess(tmp_path, datasets, query_slots="1", query_waiting="2") as queryd:
        client = queryd.client()
        first = _started(client, _ENDLESS, _ID.format(1))
        with ThreadPoolExecutor(3) as pool:
            second = pool.submit(client.query, "select 2", query_id=_ID.format(2))
            _wait_until(lambda: len(_listed(client)) == 2)
            third = pool.submit(client.refused, "select 3", query_id=_ID.format(3))
            _wait_until(lambda: len(_listed(client)) == 3)
            assert reason(client.refused("select 4")) == "OVERLOADED"
            assert reason(client.refused("select 5", query_id=_ID.format(2))) == "INVALID_REQUEST"
            client.stub.CancelQuery(pb.CancelQueryRequest(query_id=_ID.format(3)), timeout=5)
            assert reason(third.result(10)) == "QUERY_CANCELED"
            assert client.refused("select 6", timeout=0.5).metadata["limit"] == "time"
            first.cancel()
            assert second.result(30).values == [(2,)]
        client.channel.close()


def _listed(client: Client) -> list[str]:
    return [query.query_id for query in client.stub.ListQueries(pb.ListQueriesRequest()).queries]


@pytest.mark.slow
def test_a_client_that_never_reads_loses_its_place_after_the_time_limit(client: Client) -> None:
    call = _started(client, _LARGE, timeout=4)
    queries = client.stub.ListQueries(pb.ListQueriesRequest()).queries
    assert len(queries) == 1
    _wait_until(lambda: not client.stub.ListQueries(pb.ListQueriesRequest()).queries)
    assert _end(call) != "OK"


def test_a_pin_is_renewed_while_its_query_runs_and_its_loss_stops_it(tmp_path: Path) -> None:
    datasets = FakeDatasets(tmp_path / "artifacts")
    datasets.add("plain")
    datasets.publish("plain", pa.table({"x": [1]}))
    with QuerydProcess(tmp_path, datasets, query_lease_seconds="3", query_warm_cells="1") as queryd:
        client = queryd.client()
        with client.channel:
            call = _started(client, _ENDLESS)
            with datasets.changed:
                assert datasets.changed.wait_for(lambda: len(datasets.renewed) >= 2, _SECONDS)
            datasets.lose_pins()
            assert _end(call) == "PIN_EXPIRED"


def test_a_signal_lets_running_queries_end(tmp_path: Path) -> None:
    datasets = FakeDatasets(tmp_path / "artifacts")
    with QuerydProcess(tmp_path, datasets, query_warm_cells="1") as queryd:
        client = queryd.client()
        with client.channel:
            call = _started(client, "select i, repeat('x', 1000) as filler from range(20_000) t(i)")
            with ThreadPoolExecutor() as pool:
                code = pool.submit(queryd.stop)
                assert _end(call) == "OK"
                assert code.result() == 0
        assert not queryd.engine_processes(count=0)


@pytest.mark.parametrize("sandbox", ["bubblewrap", "plain"])
def test_killing_queryd_leaves_no_process_behind(tmp_path: Path, sandbox: str) -> None:
    datasets = FakeDatasets(tmp_path / "artifacts")
    with QuerydProcess(tmp_path, datasets, query_warm_cells="1", query_sandbox=sandbox) as queryd:
        client = queryd.client()
        with client.channel:
            call = _started(client, _ENDLESS.replace(", plain", ""))
            descriptors = [os.pidfd_open(pid) for pid in queryd.engine_processes(count=2)]
            queryd.process.kill()
            for descriptor in descriptors:
                assert select.select([descriptor], [], [], _SECONDS)[0], "a cell outlived queryd"
                os.close(descriptor)
            assert _end(call) == "UNAVAILABLE"


def test_faults_of_the_configuration_are_told_together() -> None:
    environment = {"TRACE_QUERY_SLOTS": "many", "TRACE_QUERY_SANDBOX": "none"}
    command = [sys.executable, "-m", "queryd.main"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    for name in ("TRACE_QUERY_SLOTS", "TRACE_QUERY_SANDBOX", "TRACE_DISPATCHER_ADDRESS", "TRACE_ARTIFACTS"):
        assert name in done.stderr


def _resident(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    (line,) = [line for line in status.splitlines() if line.startswith("VmRSS:")]
    return int(line.split()[1]) * 1024


def _wait_until_stalled(client: Client) -> None:
    """Returns when no query has answered further rows between two looks: their pipes and windows are full."""
    last: list[int] = []

    def stalled() -> bool:
        nonlocal last
        now = [query.row_count for query in client.stub.ListQueries(pb.ListQueriesRequest()).queries]
        still, last = now == last and all(now), now
        return still

    _wait_until(stalled)


def _wait_until(condition: Callable[[], bool]) -> None:
    """The wire tells these only to who asks."""
    with select.epoll() as pause:
        for _ in range(int(_SECONDS / 0.2)):
            if condition():
                return
            pause.poll(0.2)
    raise AssertionError("it did not come to pass")
