"""Each query is on record: who asked, by which call, what was pinned, how it ended and what was given."""

import hashlib
from pathlib import Path

import grpc
import pyarrow as pa
import pyarrow.flight as flight
import pytest

from kernel.ids import new_id
from tests.queryd.fake_datasets import FakeDatasets
from tests.queryd.harness import Client, QuerydProcess, reason
from traceapi.control.v1 import query_record_pb2 as record_pb
from traceapi.query.v1 import query_service_pb2 as pb

_SQL = 'select number from "eth.blocks" where number < 3'
_ENDLESS = "select count(*) from range(1_000_000_000) a, range(1_000_000_000) b, plain where a.range + b.range < 0"


def test_a_query_that_was_answered(client: Client, datasets: FakeDatasets) -> None:
    query_id = new_id()
    answer = client.query(_SQL, query_id=query_id)
    record = datasets.recorded(query_id)
    assert record.outcome == record_pb.QUERY_OUTCOME_SUCCEEDED
    assert (record.actor, record.call, record.reason) == ("user:tester", record_pb.QUERY_CALL_QUERY, "")
    assert record.client.startswith("grpc-python/")
    assert record.sql_sha256 == hashlib.sha256(_SQL.encode()).digest()
    assert record.as_of == record_pb.QUERY_AS_OF_NOW
    assert record.deploy_number == answer.started.pin.deploy_number
    assert list(record.datasets) == list(answer.started.pin.datasets)
    assert record.row_count == answer.finished.row_count == 3
    assert 0 < record.arrow_bytes <= answer.finished.arrow_bytes
    assert record.elapsed_duration.ToMicroseconds() >= answer.finished.elapsed_duration.ToMicroseconds()
    assert record.started_time.seconds > 0


def test_which_state_was_asked_for(client: Client, datasets: FakeDatasets) -> None:
    pin = client.query(_SQL).started.pin
    query_id = new_id()
    client.query(_SQL, query_id=query_id, pin=pin)
    assert datasets.recorded(query_id).as_of == record_pb.QUERY_AS_OF_PIN
    query_id = new_id()
    client.query(_SQL, query_id=query_id, deploy_number=1)
    assert datasets.recorded(query_id).as_of == record_pb.QUERY_AS_OF_DEPLOY


@pytest.mark.parametrize(
    ("sql", "why"),
    [
        ("copy plain to '/tmp/x'", "SQL_REFUSED"),
        ('select * from "eth.nothing"', "DATASET_NOT_FOUND"),
    ],
)
def test_a_query_that_was_refused(client: Client, datasets: FakeDatasets, sql: str, why: str) -> None:
    query_id = new_id()
    assert reason(client.refused(sql, query_id=query_id)) == why
    record = datasets.recorded(query_id)
    assert (record.outcome, record.reason) == (record_pb.QUERY_OUTCOME_REFUSED, why)
    assert not record.datasets
    assert not record.HasField("deploy_number")
    assert record.row_count == record.arrow_bytes == 0


def test_a_query_that_failed(client: Client, datasets: FakeDatasets) -> None:
    query_id = new_id()
    client.refused("select * from range(1000), plain", query_id=query_id, max_rows=10)
    record = datasets.recorded(query_id)
    assert (record.outcome, record.reason) == (record_pb.QUERY_OUTCOME_FAILED, "QUERY_LIMIT")
    assert [pin.dataset_id for pin in record.datasets] == ["plain"]


def test_a_query_that_was_stopped(client: Client, datasets: FakeDatasets) -> None:
    query_id = new_id()
    call = client.stub.Query(pb.QueryRequest(sql=_ENDLESS, query_id=query_id), timeout=60)
    assert next(call).HasField("started")
    client.stub.CancelQuery(pb.CancelQueryRequest(query_id=query_id))
    with pytest.raises(grpc.RpcError):
        list(call)
    record = datasets.recorded(query_id)
    assert (record.outcome, record.reason) == (record_pb.QUERY_OUTCOME_CANCELED, "QUERY_CANCELED")
    assert [pin.dataset_id for pin in record.datasets] == ["plain"]


def test_a_query_whose_client_went_away(client: Client, datasets: FakeDatasets) -> None:
    query_id = new_id()
    call = client.stub.Query(pb.QueryRequest(sql="select * from range(1_000_000_000)", query_id=query_id), timeout=60)
    assert next(call).HasField("started")
    call.cancel()
    assert datasets.recorded(query_id).outcome == record_pb.QUERY_OUTCOME_CANCELED


def test_one_that_was_only_looked_at(client: Client, datasets: FakeDatasets) -> None:
    before = len(datasets.records)
    client.stub.ExplainQuery(pb.ExplainQueryRequest(sql=_SQL), timeout=30)
    with datasets.changed:
        assert datasets.changed.wait_for(lambda: len(datasets.records) > before, 20)
    record = datasets.records[-1]
    assert (record.call, record.outcome) == (record_pb.QUERY_CALL_EXPLAIN, record_pb.QUERY_OUTCOME_SUCCEEDED)
    assert [pin.dataset_id for pin in record.datasets] == ["eth.blocks"]
    assert record.row_count == 0


def test_one_that_came_by_flight(queryd: QuerydProcess, datasets: FakeDatasets) -> None:
    header = (b"authorization", f"Bearer {queryd.user_token}".encode())
    options = flight.FlightCallOptions(headers=[header])  # type: ignore[list-item]  # the stub says str, Arrow takes bytes
    with flight.connect(f"grpc://{queryd.address}") as client:
        before = len(datasets.records)
        info = client.get_flight_info(flight.FlightDescriptor.for_command(_SQL), options)
        assert client.do_get(info.endpoints[0].ticket, options).read_all().num_rows == 3
    with datasets.changed:
        assert datasets.changed.wait_for(lambda: len(datasets.records) > before, 20)
    record = datasets.records[-1]
    assert (record.call, record.outcome) == (record_pb.QUERY_CALL_FLIGHT, record_pb.QUERY_OUTCOME_SUCCEEDED)
    assert record.row_count == 3
    assert record.client.startswith("grpc-c++/")


def test_what_a_dispatcher_did_not_take_is_told_again_and_queries_go_on(tmp_path: Path) -> None:
    datasets = _one_dataset(tmp_path)
    with QuerydProcess(tmp_path, datasets, query_warm_cells="1") as queryd:
        client = queryd.client()
        with client.channel:
            datasets.refuse_records = True
            first, second = new_id(), new_id()
            client.query("select * from plain", query_id=first)
            with datasets.changed:
                assert datasets.changed.wait_for(lambda: datasets.unrecorded, 20)
            client.query("select * from plain", query_id=second)
            with datasets.changed:
                datasets.refuse_records = False
            assert datasets.recorded(first).record_id == datasets.unrecorded[0][0]
            assert datasets.recorded(second).outcome == record_pb.QUERY_OUTCOME_SUCCEEDED


def test_a_signal_tells_the_rest(tmp_path: Path) -> None:
    datasets = _one_dataset(tmp_path)
    with QuerydProcess(tmp_path, datasets, query_warm_cells="1") as queryd:
        client = queryd.client()
        query_ids = [new_id() for _ in range(3)]
        with client.channel:
            for query_id in query_ids:
                client.query("select * from plain", query_id=query_id)
        assert queryd.stop() == 0
    assert {record.query_id for record in datasets.records} == set(query_ids)


def _one_dataset(tmp_path: Path) -> FakeDatasets:
    datasets = FakeDatasets(tmp_path / "artifacts")
    datasets.add("plain")
    datasets.publish("plain", pa.table({"x": [1]}))
    return datasets
