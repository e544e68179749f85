"""A dataset's columns have one order: in a query, with files and without, before it is run, and in the catalogue."""

from collections.abc import Iterator
from typing import Any

import adbc_driver_flightsql.dbapi as flight_sql
import pyarrow as pa
import pytest
from adbc_driver_flightsql import DatabaseOptions
from adbc_driver_manager.dbapi import Connection

from tests.queryd.fake_datasets import FakeDatasets
from tests.queryd.harness import Client, QuerydProcess
from traceapi.types.v1.dataset_pb2 import DatasetVersion
from traceapi.types.v1.scope_pb2 import CURSOR_TYPE_UNSPECIFIED

# Neither by name nor as the files below have them.
COLUMNS = ["number", "miner", "gas", "fee"]
SCHEMA = dict.fromkeys(COLUMNS, "int64")


@pytest.fixture(scope="module")
def connection(queryd: QuerydProcess) -> Iterator[Connection]:
    options = {DatabaseOptions.AUTHORIZATION_HEADER.value: f"Bearer {queryd.user_token}"}
    with flight_sql.connect(f"grpc://{queryd.address}", options, autocommit=True) as connection:
        yield connection


@pytest.fixture
def ordered(datasets: FakeDatasets) -> FakeDatasets:
    """Two files, of which each has an order of its own; and views of them."""
    datasets.add("shelf.blocks", schema=SCHEMA)
    datasets.publish("shelf.blocks", pa.table({"gas": [10], "fee": [20], "number": [0], "miner": [30]}))
    datasets.publish("shelf.blocks", pa.table({"miner": [31], "number": [9], "fee": [21], "gas": [11]}))
    datasets.add("shelf.all", virtual_sql='select * from "shelf.blocks"', schema=SCHEMA)
    declared = {"most": "int64", "least": "int64"}
    datasets.add(
        "shelf.declared",
        virtual_sql='select min(gas) as least, max(gas) as most from "shelf.blocks" -- é;\n ; -- done',
        schema=declared,
    )
    return datasets


def columns(client: Client, sql: str) -> list[str]:
    return client.query(sql).table.schema.names


def told(connection: Connection, sql: str) -> list[str]:
    """Without running it."""
    with connection.cursor() as cursor:
        return cursor.adbc_execute_schema(sql).names


def catalogued(connection: Connection, schema: str, table: str) -> list[dict[str, Any]]:
    """The columns of a table, as `get_objects` has them."""
    objects = connection.adbc_get_objects(depth="all", db_schema_filter=schema, table_name_filter=table)
    (catalog,) = objects.read_all().to_pylist()
    found: list[dict[str, Any]] = catalog["catalog_db_schemas"][0]["db_schema_tables"][0]["table_columns"]
    return found


@pytest.mark.parametrize("name", ["shelf.blocks", "shelf.all"])
@pytest.mark.parametrize(
    ("where", "files"),
    [("", 2), ("where number = 0", 1), ("where number = 9", 1), ("where number = 5", 0), ("where number > 100", 0)],
)
def test_a_star_means_the_same_whatever_files_there_are(
    client: Client, connection: Connection, ordered: FakeDatasets, name: str, where: str, files: int
) -> None:
    sql = f"select * from {name} {where}"  # noqa: S608 - of these lists
    answer = client.query(sql)
    assert answer.started.file_count == files
    assert answer.table.schema.names == COLUMNS
    assert told(connection, sql) == COLUMNS
    with connection.cursor() as cursor:
        cursor.execute(sql)
        assert cursor.fetch_arrow_table().schema.names == COLUMNS


def test_rows_of_files_of_other_orders_keep_their_columns(client: Client, ordered: FakeDatasets) -> None:
    rows = client.query('select * from "shelf.blocks" order by number').values
    assert rows == [(0, 30, 10, 20), (9, 31, 11, 21)]


def test_a_union_by_position_does_not_mix_columns(client: Client, ordered: FakeDatasets) -> None:
    sql = 'select * from "shelf.blocks" where number = {} union all select * from "shelf.blocks" where number = {}'
    for first, second in ((5, 9), (9, 5)):
        assert client.query(sql.format(first, second)).values == [(9, 31, 11, 21)]


@pytest.mark.parametrize("values", [[5], [9]])
def test_what_is_told_at_prepare_holds_for_every_value(
    connection: Connection, ordered: FakeDatasets, values: list[int]
) -> None:
    sql = 'select * from "shelf.blocks" where number = ?'
    with connection.cursor() as cursor:
        cursor.adbc_prepare(sql)
        cursor.execute(sql, values)
        assert cursor.fetch_arrow_table().schema.names == COLUMNS


def test_a_virtual_dataset_has_its_declared_order_and_not_that_of_its_text(
    client: Client, connection: Connection, ordered: FakeDatasets
) -> None:
    sql = 'select * from "shelf.declared"'
    assert client.query(sql).rows == [{"most": 11, "least": 10}]
    assert columns(client, sql) == told(connection, sql) == ["most", "least"]
    assert columns(client, "select * from shelf.DECLARED") == ["most", "least"], "under every name"


def test_a_virtual_dataset_of_which_a_column_has_gone_gives_what_is_left(
    client: Client, datasets: FakeDatasets
) -> None:
    """Its own deploy checks it again; until then what it reads may be another version, with other columns."""
    datasets.add("shelf.moved", schema={"number": "int64", "old": "int64"})
    datasets.add("shelf.over", virtual_sql="select * from shelf.moved", schema={"old": "int64", "number": "int64"})
    assert columns(client, "select * from shelf.over") == ["old", "number"]
    datasets.add("shelf.moved", schema={"number": "int64", "new": "int64"})
    assert columns(client, "select * from shelf.over") == ["number", "new"]
    error = client.refused("select old from shelf.over")
    assert 'Referenced column "old" not found' in error.message


def test_frozen_columns_have_the_order_of_the_first_file(
    client: Client, connection: Connection, datasets: FakeDatasets
) -> None:
    datasets.add("shelf.frozen")
    version = DatasetVersion(schema=SCHEMA, column_order=COLUMNS)
    datasets.versions["shelf.frozen"].dataset.served_version.CopyFrom(version)
    datasets.publish("shelf.frozen", pa.table({"gas": [10], "fee": [20], "number": [3], "miner": [30]}))
    for where in ("", "where number = 4"):
        sql = f"select * from shelf.frozen {where}"  # noqa: S608 - of this list
        assert columns(client, sql) == told(connection, sql) == COLUMNS
    assert [column["column_name"] for column in catalogued(connection, "shelf", "frozen")] == COLUMNS


def test_columns_of_a_version_without_a_record_of_their_order_are_by_name(
    client: Client, connection: Connection, datasets: FakeDatasets
) -> None:
    datasets.add("shelf.older", schema=SCHEMA, column_order=[])
    datasets.add("shelf.olderview", virtual_sql="select miner, fee from shelf.older", schema=SCHEMA, column_order=[])
    datasets.publish("shelf.older", pa.table({"gas": [10], "fee": [20], "number": [3], "miner": [30]}))
    for where in ("", "where number = 4"):
        sql = f"select * from shelf.older {where}"  # noqa: S608 - of this list
        assert columns(client, sql) == told(connection, sql) == sorted(COLUMNS)
    assert [column["column_name"] for column in catalogued(connection, "shelf", "older")] == sorted(COLUMNS)
    assert columns(client, "select * from shelf.olderview") == ["miner", "fee"], "as its SQL gives them"


@pytest.mark.parametrize(
    ("table", "expected", "comments"),
    [
        (
            "blocks",
            [
                ("number", "BIGINT"),
                ("difficulty", "DECIMAL(38,0)"),
                ("time", "TIMESTAMP WITH TIME ZONE"),
                ("miner", "VARCHAR"),
            ],
            {"number": "Height in the chain."},
        ),
        ("miners", [("miner", "VARCHAR"), ("blocks", "BIGINT")], {"blocks": "How many it made."}),
        (
            "empty",
            [
                ("number", "BIGINT"),
                ("fee", "DECIMAL(20,2)"),
                ("tags", "VARCHAR[]"),
                ("at", "TIMESTAMP WITH TIME ZONE"),
            ],
            {},
        ),
    ],
)
def test_the_catalogue_has_the_order_and_what_is_said_of_each_column(
    connection: Connection, table: str, expected: list[tuple[str, str]], comments: dict[str, str]
) -> None:
    """Comments come with a table's schema: this driver leaves `remarks` of `get_objects` empty, whatever it is told."""
    found = catalogued(connection, "eth", table)
    assert [(column["column_name"], column["xdbc_type_name"]) for column in found] == expected
    assert [column["ordinal_position"] for column in found] == list(range(1, len(found) + 1))
    schema = connection.adbc_get_table_schema(table, db_schema_filter="eth")
    said = [(field.metadata or {}).get(b"ARROW:FLIGHT:SQL:REMARKS", b"").decode() for field in schema]
    assert said == [comments.get(name, "") for name, _ in expected]


def test_a_dataset_of_events_only_has_the_columns_of_its_scopes(
    client: Client, connection: Connection, datasets: FakeDatasets
) -> None:
    shown = [
        (column["column_name"], column["xdbc_type_name"]) for column in catalogued(connection, "eth", "block_ranges")
    ]
    assert shown == [("first", "BIGINT"), ("last", "BIGINT"), ("unit_count", "UBIGINT"), ("revision", "UBIGINT")]
    assert columns(client, 'select * from "eth.block_ranges"') == [name for name, _ in shown]
    storage = datasets.versions["eth.block_ranges"].dataset.spec.storage
    datasets.add("shelf.keyed", storage=storage, cursor_type=CURSOR_TYPE_UNSPECIFIED)
    keyed = [column["column_name"] for column in catalogued(connection, "shelf", "keyed")]
    assert keyed == ["partition_key", "revision"] == columns(client, "select * from shelf.keyed")


@pytest.mark.parametrize("name", ["blocks", "miners", "block_ranges", "empty"])
def test_the_catalogue_tells_the_columns_that_a_query_has(client: Client, connection: Connection, name: str) -> None:
    schema = connection.adbc_get_table_schema(name, db_schema_filter="eth")
    asked = client.query(f'select * from "eth.{name}" limit 0').table.schema  # noqa: S608 - of this list
    assert [(field.name, field.type) for field in schema] == [(field.name, field.type) for field in asked]


def test_what_a_dataset_holds_is_said_of_its_table(connection: Connection) -> None:
    for name, said in (("blocks", b"The blocks of a small chain."), ("miners", b"Who made how many blocks.")):
        schema = connection.adbc_get_table_schema(name, db_schema_filter="eth")
        assert (schema.metadata or {})[b"ARROW:FLIGHT:SQL:REMARKS"] == said
    assert not connection.adbc_get_table_schema("empty", db_schema_filter="eth").metadata
