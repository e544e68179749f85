"""A text that is described or explained reads no more than one file of each dataset: none of it is asked for rows."""

from collections.abc import Iterator
from pathlib import Path

import adbc_driver_flightsql.dbapi as flight_sql
import pyarrow as pa
import pytest
from adbc_driver_flightsql import DatabaseOptions

from tests.queryd.conftest import blocks
from tests.queryd.fake_datasets import FakeDatasets, range_event
from tests.queryd.harness import Client, QuerydProcess
from traceapi.query.v1 import query_service_pb2 as pb
from traceapi.types.v1.dag_pb2 import Storage

_SQL = "select number, miner from many where number = ?"


@pytest.fixture(params=[100, 0], ids=["files come with the pin", "files are asked for"])
def many(request: pytest.FixtureRequest, datasets: FakeDatasets) -> Iterator[FakeDatasets]:
    """A dataset of several files, of which only the first is there: who looks for another one hears that it is lost."""
    datasets.add("many")
    others = [datasets.publish("many", blocks(first, 5)) for first in (0, 5, 10)][1:]
    for artifact in others:
        (datasets.root / Path(artifact.key)).unlink()
    datasets.few, few = request.param, datasets.few
    yield datasets
    datasets.few = few
    del datasets.versions["many"]


def test_a_prepared_text_reads_one_file_whose_values_come_later(queryd: QuerydProcess, many: FakeDatasets) -> None:
    options = {DatabaseOptions.AUTHORIZATION_HEADER.value: f"Bearer {queryd.user_token}"}
    with (
        flight_sql.connect(f"grpc://{queryd.address}", options, autocommit=True) as connection,
        connection.cursor() as cursor,
    ):
        cursor.adbc_prepare(_SQL)
        cursor.execute(_SQL, [3])  # whose values leave one file
        assert cursor.fetchall() == [(3, "m0")]


def test_what_would_be_read_is_counted_and_not_read(client: Client, many: FakeDatasets) -> None:
    explained = client.stub.ExplainQuery(
        pb.ExplainQueryRequest(sql="select number from many where miner = 'm1'"), timeout=30
    )
    (dataset,) = explained.datasets
    assert (dataset.file_count, dataset.row_count) == (3, 15)
    assert "READ_PARQUET" in explained.plan


def test_of_scopes_one_is_enough(queryd: QuerydProcess, datasets: FakeDatasets) -> None:
    datasets.add("ranges", storage=Storage.STORAGE_NONE)
    datasets.emit("ranges", [range_event(first, first, 1) for first in range(300)])
    options = {DatabaseOptions.AUTHORIZATION_HEADER.value: f"Bearer {queryd.user_token}"}
    with (
        flight_sql.connect(f"grpc://{queryd.address}", options, autocommit=True) as connection,
        connection.cursor() as cursor,
    ):
        cursor.adbc_prepare("select first from ranges where last = ?")
        assert datasets.resolved[-1].limit == 1
        cursor.execute("select first from ranges where last = ?", [7])
        assert cursor.fetch_arrow_table() == pa.table({"first": [7]})
