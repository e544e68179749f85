"""Clients that people have, unmodified: the ADBC driver, pandas, polars and pyarrow.flight against a real queryd."""

import datetime
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any, Literal

import adbc_driver_flightsql.dbapi as flight_sql
import adbc_driver_manager
import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.flight as flight
import pytest
from adbc_driver_flightsql import StatementOptions
from adbc_driver_manager.dbapi import Connection

from tests.queryd.conftest import BLOCKS
from tests.queryd.fake_datasets import FakeDatasets
from tests.queryd.flight.clients import FlightClient, connect
from tests.queryd.harness import Client, QuerydProcess
from traceapi.query.v1 import query_service_pb2 as pb


@pytest.fixture
def connection(queryd: QuerydProcess) -> Iterator[Connection]:
    with connect(queryd) as connection:
        yield connection


def _rows(connection: Connection, sql: str, parameters: list[Any] | None = None) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        return cursor.fetchall()


def test_a_query_is_answered_with_exact_types(connection: Connection) -> None:
    with connection.cursor() as cursor:
        cursor.execute('select number, difficulty, time, miner from "eth.blocks" order by number')
        table = cursor.fetch_arrow_table()
    assert table.num_rows == BLOCKS
    assert table.schema.types == [pa.int64(), pa.decimal128(38, 0), pa.timestamp("us", tz="UTC"), pa.string()]
    assert table["difficulty"][3].as_py() == Decimal(10**37 + 3)


def test_a_large_answer_and_an_empty_one(connection: Connection) -> None:
    rows = _rows(connection, "select count(*), sum(r) from (select range r from range(1000000))")
    assert rows == [(1_000_000, Decimal(499_999_500_000))]
    with connection.cursor() as cursor:
        cursor.execute("select range r, range::varchar s from range(300000)")
        assert cursor.fetch_arrow_table()["r"].to_pylist() == list(range(300_000))
        cursor.execute("select 1 x where false")
        assert cursor.fetchall() == []


@pytest.mark.parametrize(
    "type_",
    [
        *("boolean", "tinyint", "smallint", "integer", "bigint", "utinyint", "usmallint", "uinteger", "ubigint"),
        *("float", "double", "varchar", "blob", "date", "time", "timestamp", "timestamptz", "timestamp_ns"),
        *("interval", "decimal(38,10)", "hugeint", "uuid", "integer[]", "struct(a integer, b varchar[])"),
        *("map(varchar, integer)", "varchar[][]", "enum('x','y')"),
    ],
)
def test_every_type_arrives_as_plain_duckdb_gives_it(connection: Connection, type_: str) -> None:
    values = {
        **dict.fromkeys(("varchar", "blob"), "'text'"),
        "boolean": "true",
        "date": "'2024-02-29'",
        "time": "'01:02:03.5'",
        "interval": "interval 3 days",
        **dict.fromkeys(("timestamp", "timestamptz", "timestamp_ns"), "'2024-02-29 01:02:03.25'"),
        "uuid": "'00000000-0000-0000-0000-000000000001'",
        "integer[]": "[1, null]",
        "varchar[][]": "[['a'], []]",
        "struct(a integer, b varchar[])": "{'a': 1, 'b': ['x']}",
        "map(varchar, integer)": "map {'k': 1}",
        "enum('x','y')": "'y'",
    }
    sql = f"select ({values.get(type_, '7')})::{type_} as v union all select null"
    with connection.cursor() as cursor:
        cursor.execute(sql)
        table = cursor.fetch_arrow_table()
    with duckdb.connect() as engine:
        engine.execute("set TimeZone = 'UTC'")
        expected = engine.sql(sql).to_arrow_table()
    assert table.schema.types == expected.schema.types
    assert table.to_pylist() == expected.to_pylist()
    assert table["v"].null_count == 1


def test_parameters_have_their_types(connection: Connection) -> None:
    sql = 'select number from "eth.blocks" where number >= ? and miner = ? and difficulty < ? order by 1 limit ?'
    assert _rows(connection, sql, [2, "m2", Decimal(10**37 + 9), 5]) == [(2,), (5,), (8,)]
    when = datetime.datetime(2024, 2, 29, tzinfo=datetime.UTC)
    assert _rows(connection, "select ? = '2024-02-29'::timestamptz, typeof(?)", [when, 1.5]) == [(True, "DOUBLE")]
    assert _rows(connection, "select $2 - $1", [3, 10]) == [(7,)]


def test_parameters_bound_the_cursor_each_at_its_place(connection: Connection) -> None:
    for where in ("number between ? and ?", "number >= $1 and number <= $2", "number <= $2 and $1 <= number"):
        sql = f'select number from "eth.blocks" where {where} order by 1'  # noqa: S608 - of this list
        assert _rows(connection, sql, [3, 7]) == [(3,), (4,), (5,), (6,), (7,)], where


def test_a_statement_is_prepared_once_and_run_with_other_values(connection: Connection) -> None:
    with connection.cursor() as cursor:
        sql = 'select count(*) from "eth.blocks" where number < ?'
        counts = []
        for bound in (3, 7, 0):
            cursor.execute(sql, [bound])
            counts.append(cursor.fetchone())
    assert counts == [(3,), (7,), (0,)]


def test_the_wrong_number_of_values_is_an_error(connection: Connection) -> None:
    with pytest.raises(adbc_driver_manager.Error, match=r"the parameters \$1, \$2, and 1 values came"):
        _rows(connection, "select ? + ?", [1])
    with pytest.raises(adbc_driver_manager.Error, match="no values came with it"):
        _rows(connection, "select ? + 1")


def test_the_schema_is_told_without_running(connection: Connection) -> None:
    with connection.cursor() as cursor:
        schema = cursor.adbc_execute_schema('select number, miner m, 1.5::double x from "eth.blocks"')
    assert [(field.name, field.type) for field in schema] == [
        ("number", pa.int64()),
        ("m", pa.string()),
        ("x", pa.float64()),
    ]


def test_errors_say_where(connection: Connection) -> None:
    for sql, wanted in [
        ('select nothing from "eth.blocks"', 'line 1, column 8: Binder error: Referenced column "nothing" not found'),
        ("select * from read_csv('/etc/passwd')", "line 1, column 15: the table function read_csv is not one of"),
        ('select * from "eth.blcks"', "line 1, column 15: no dataset is called eth.blcks"),
        ("create table x (a int)", "a query is one SELECT"),
    ]:
        with pytest.raises(adbc_driver_manager.Error) as caught:
            _rows(connection, sql)
        assert wanted in str(caught.value)


def test_writing_is_refused(connection: Connection) -> None:
    with connection.cursor() as cursor:
        with pytest.raises(adbc_driver_manager.Error, match="datasets are read, by one SELECT"):
            cursor.adbc_ingest("eth.blocks", pa.table({"number": [1]}), mode="append")
        with pytest.raises(adbc_driver_manager.Error, match="a query is one SELECT, and this is another statement"):
            cursor.executemany("insert into x values (?)", [[1], [2]])


def test_the_catalogue_at_every_depth(connection: Connection) -> None:
    def objects(depth: Literal["all", "catalogs", "db_schemas", "tables"], **filters: Any) -> list[Any]:
        return connection.adbc_get_objects(depth=depth, **filters).read_all().to_pylist()

    (catalog,) = objects("catalogs")
    assert catalog["catalog_name"] == ""
    (catalog,) = objects("db_schemas")
    assert {schema["db_schema_name"] for schema in catalog["catalog_db_schemas"]} == {"", "eth"}
    (catalog,) = objects("tables", db_schema_filter="eth")
    (schema,) = catalog["catalog_db_schemas"]
    kinds = {table["table_name"]: table["table_type"] for table in schema["db_schema_tables"]}
    assert kinds["blocks"] == "TABLE"
    assert kinds["miners"] == "VIEW"
    (catalog,) = objects("all", db_schema_filter="eth", table_name_filter="bloc_s")
    (table,) = catalog["catalog_db_schemas"][0]["db_schema_tables"]
    columns = {column["column_name"]: column["xdbc_type_name"] for column in table["table_columns"]}
    assert columns == {
        "number": "BIGINT",
        "difficulty": "DECIMAL(38,0)",
        "time": "TIMESTAMP WITH TIME ZONE",
        "miner": "VARCHAR",
    }


def test_names_of_the_catalogue_are_names_of_queries(connection: Connection) -> None:
    (catalog,) = connection.adbc_get_objects(depth="tables").read_all().to_pylist()
    for schema in catalog["catalog_db_schemas"]:
        for table in schema["db_schema_tables"]:
            if table["table_name"] in ("unknown", "empty"):
                continue
            names = [schema["db_schema_name"], table["table_name"]]
            written = ".".join(f'"{name}"' for name in names if name)
            assert _rows(connection, f"select count(*) >= 0 from {written}") == [(True,)]  # noqa: S608 - of the catalogue


def test_one_table_s_columns(connection: Connection) -> None:
    schema = connection.adbc_get_table_schema("blocks", db_schema_filter="eth")
    assert schema.field("difficulty").type == pa.decimal128(38, 0)
    comment = (schema.field("number").metadata or {})[b"ARROW:FLIGHT:SQL:REMARKS"]
    assert comment == b"Height in the chain."
    assert connection.adbc_get_table_types() == ["TABLE", "VIEW"]
    with pytest.raises(adbc_driver_manager.Error):
        connection.adbc_get_table_schema("nothing")


def test_the_server_says_who_it_is(connection: Connection) -> None:
    info = connection.adbc_get_info()
    assert info["vendor_name"] == "Trace"


def test_a_state_given_again_is_read_again(queryd: QuerydProcess, datasets: FakeDatasets) -> None:
    client = FlightClient(queryd)
    info = client.get_flight_info(flight.FlightDescriptor.for_command(b'select count(*) n from "eth.transactions"'))
    told = json.loads(info.app_metadata)
    assert told["pin"]["datasets"][0]["dataset_id"] == "eth.transactions"
    with connect(queryd, trace_as_of=told["as_of"]) as connection:
        assert _rows(connection, 'select count(*) from "eth.transactions"') == [(4,)]
    wrong = pytest.raises(adbc_driver_manager.Error, match="the header trace-as-of is not")
    with connect(queryd, trace_as_of="yesterday") as connection, wrong:
        _rows(connection, "select 1")


def test_limits_are_given_as_headers(queryd: QuerydProcess) -> None:
    too_many = pytest.raises(adbc_driver_manager.Error, match="more than 10 rows")
    with connect(queryd, trace_max_rows="10") as connection, too_many:
        _rows(connection, "select * from range(11)")
    too_long = pytest.raises(adbc_driver_manager.Error, match="its time limit, and was stopped")
    with connect(queryd, trace_timeout="4") as connection, too_long:
        _rows(connection, "select count(*) from range(1000000) a, range(1000000) b where a.range * b.range = 7")


def test_a_header_waits_for_a_watermark(queryd: QuerydProcess, datasets: FakeDatasets) -> None:
    datasets.add("arriving")
    datasets.publish("arriving", pa.table({"number": [1]}))
    wanted, count = json.dumps({"ARRIVING": 5}), len(datasets.pin_requests)
    sql = "select count(*) from arriving"
    with ThreadPoolExecutor() as pool, connect(queryd, trace_min_watermarks=wanted) as connection:
        waiting = pool.submit(_rows, connection, sql)
        datasets.wait_for_pin_requests(count + 2)  # it looked, and looked again
        datasets.publish("arriving", pa.table({"number": [5]}))
        datasets.move_watermark("arriving", "5")
        assert waiting.result() == [(2,)]
    too_far = pytest.raises(adbc_driver_manager.Error, match='the watermark of "arriving" is at 5, wanted is 6')
    with connect(queryd, trace_min_watermarks='{"arriving": 6}', trace_timeout="1") as connection, too_far:
        _rows(connection, sql)


@pytest.mark.parametrize(
    ("header", "value", "wanted"),
    [
        ("trace_timeout", "9999", "trace-timeout is not a number of seconds from 0.001 to 3600"),
        ("trace_timeout", "0", "trace-timeout is not a number of seconds from 0.001 to 3600"),
        ("trace_timeout", "nan", "trace-timeout is not a number of seconds from 0.001 to 3600"),
        ("trace_max_rows", "1.5", "trace-max-rows is not a whole number of rows"),
        ("trace_as_of", "9" * 30, "trace-as-of is not the number of a deploy"),
    ],
)
def test_a_header_that_cannot_be_is_named(queryd: QuerydProcess, header: str, value: str, wanted: str) -> None:
    refused = pytest.raises(adbc_driver_manager.ProgrammingError, match=wanted)
    with connect(queryd, **{header: value}) as connection, refused:
        _rows(connection, "select 1")


def test_a_name_and_the_token_are_a_login(queryd: QuerydProcess, client: Client, datasets: FakeDatasets) -> None:
    """The name is who asks, in the list of queries and on record, as in each call to come: the driver logs in once."""
    options = {"username": "alice", "password": queryd.user_token}
    sql = "select * from range(1000000042)"
    with (
        flight_sql.connect(f"grpc://{queryd.address}", options, autocommit=True) as connection,
        connection.cursor() as cursor,
    ):
        cursor.execute(sql)
        cursor.fetchone()
        (running,) = [each for each in client.stub.ListQueries(pb.ListQueriesRequest()).queries if each.sql == sql]
    assert running.actor == "user:alice"
    assert datasets.recorded(running.query_id).actor == "user:alice"
    with pytest.raises(adbc_driver_manager.Error, match="not one that this listener accepts"):
        flight_sql.connect(f"grpc://{queryd.address}", options | {"password": "x" * 32}, autocommit=True)


def test_pandas_and_polars_read_through_adbc(queryd: QuerydProcess, connection: Connection) -> None:
    sql = "select number, miner from eth.blocks order by number"
    frame = pd.read_sql(sql, connection)
    assert list(frame["number"]) == list(range(BLOCKS))
    polars = pl.read_database(sql, connection)
    assert polars["number"].to_list() == list(range(BLOCKS))


def test_pyarrow_flight_reads_a_text_and_a_dataset(queryd: QuerydProcess) -> None:
    client = FlightClient(queryd)
    info = client.get_flight_info(flight.FlightDescriptor.for_path("eth.blocks"))
    assert info.schema.names == ["number", "difficulty", "time", "miner"]
    assert client.table(info.endpoints[0].ticket).num_rows == BLOCKS
    assert client.table(flight.Ticket(b"select 1 as one")).to_pylist() == [{"one": 1}]
    paths = [info.descriptor.path for info in client.client.list_flights(options=client.options)]
    assert [b"eth.blocks"] in paths
    assert [b"plain"] in paths


def test_a_ticket_is_served_again_at_its_pin(queryd: QuerydProcess) -> None:
    client = FlightClient(queryd)
    ticket = client.get_flight_info(flight.FlightDescriptor.for_command(b"select * from plain")).endpoints[0].ticket
    first, second = client.table(ticket), client.table(ticket)
    assert first == second
    with pytest.raises(pa.ArrowInvalid, match="neither a command of Flight SQL nor a text"):
        client.table(flight.Ticket(b"\xff\xfe\x00"))


def test_headers_do_not_move_a_ticket_from_its_pin(queryd: QuerydProcess, datasets: FakeDatasets) -> None:
    """A connection sends its headers with each call, also where a ticket is read that is pinned already."""
    datasets.add("growing")
    datasets.publish("growing", pa.table({"x": [1]}))
    client = FlightClient(queryd)
    client.headers.append((b"trace-as-of", b"1"))
    client.options = flight.FlightCallOptions(headers=client.headers)
    ticket = client.get_flight_info(flight.FlightDescriptor.for_command(b"select * from growing")).endpoints[0].ticket
    datasets.publish("growing", pa.table({"x": [2]}))
    assert [client.table(ticket).num_rows for _ in range(2)] == [1, 1]


def test_a_ticket_that_waited_for_a_watermark_is_served_again(queryd: QuerydProcess, datasets: FakeDatasets) -> None:
    """Its state has reached it, and how far a state of before was is not on record."""
    datasets.add("reached")
    datasets.publish("reached", pa.table({"number": [5]}))
    datasets.move_watermark("reached", "5")
    client = FlightClient(queryd)
    client.headers.append((b"trace-min-watermarks", b'{"reached": 5}'))
    client.options = flight.FlightCallOptions(headers=client.headers)
    ticket = client.get_flight_info(flight.FlightDescriptor.for_command(b"select * from reached")).endpoints[0].ticket
    assert [client.table(ticket).num_rows for _ in range(2)] == [1, 1]


def test_a_query_is_cancelled(queryd: QuerydProcess, connection: Connection, datasets: FakeDatasets) -> None:
    cursor = connection.cursor()
    cursor.execute("select * from range(1000000000)")
    cursor.fetchone()
    cursor.adbc_cancel()
    with pytest.raises(adbc_driver_manager.Error):
        cursor.fetchall()
    cursor.close()
    assert StatementOptions.TIMEOUT_QUERY.value  # a client's own limit works as well
