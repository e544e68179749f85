"""One order of a dataset's columns the whole way: document, dispatcher, workers, queryd, and a client's catalogue."""

from collections.abc import Callable
from pathlib import Path

import adbc_driver_flightsql.dbapi as flight_sql
import pytest
from adbc_driver_flightsql import DatabaseOptions
from adbc_driver_manager.dbapi import Connection

from ctl.query_stream import QueryStream
from tests.acceptance.conftest import RunningStack

pytestmark = pytest.mark.acceptance

# No order is that of the names. The file has one of its own, and so has the table that the code returns.
DOCUMENT = """
dag: ordered
jobs:
  blocks:
    source: replay
    config: {path: blocks.csv, cursor: number, until: 3}
    outputs:
      o.blocks: {cursor: {column: number, type: int64}, schema: {number: int64, miner: string, gas: int64, fee: int64}}
  copies:
    operator: sql
    config: {sql: 'select * from o.blocks'}
    inputs: {o.blocks: {}}
    outputs: {o.copies: {}}
  seen:
    operator: python
    runtime: python3.11
    code: {bundle: ./code, entrypoint: "order:main"}
    inputs: {o.copies: {}}
    outputs: {o.seen: {}}
  later:
    operator: sql
    config: {sql: 'select * from o.seen'}
    inputs: {o.seen: {}}
    outputs: {o.later: {cursor: {column: number, type: int64}}}
  again:
    operator: sql
    config: {sql: 'select miner, number, fee, gas from o.copies'}
    inputs: {o.copies: {}}
    outputs: {o.again: {schema: {number: int64, gas: int64, miner: string, fee: int64}}}
  ranges: {operator: aggregator, config: {size: 2}, inputs: {o.blocks: {}}, outputs: {o.ranges: {storage: none}}}
  all: {virtual: {sql: 'select * from o.copies'}, outputs: {o.all: {}}}
  shown:
    virtual: {sql: 'select gas, number from o.blocks'}
    outputs: {o.shown: {schema: {number: int64, gas: int64}, column_descriptions: {gas: What it used.}}}
"""
CODE = """
def main(task):
    rows = task.read("o.copies")
    names = ",".join(rows.schema.names)
    return rows.select(["number"]).append_column("read", [[names] * rows.num_rows]).append_column("a", rows["gas"])
"""
WRITTEN = ["number", "miner", "gas", "fee"]
ORDERS = {
    "o.blocks": WRITTEN,
    "o.copies": WRITTEN,
    "o.all": WRITTEN,
    "o.seen": ["number", "read", "a"],
    "o.later": ["number", "read", "a"],
    "o.again": ["number", "gas", "miner", "fee"],
    "o.shown": ["number", "gas"],
    "o.ranges": ["first", "last", "unit_count", "revision"],
}


@pytest.fixture
def document(tmp_path: Path) -> Path:
    folder = tmp_path / "ordered"
    (folder / "code").mkdir(parents=True)
    (folder / "code" / "order.py").write_text(CODE)
    (folder / "blocks.csv").write_text("gas,miner,number,fee\n" + "".join(f"{n * 10},m{n},{n},{n}\n" for n in range(4)))
    (folder / "dag.yaml").write_text(DOCUMENT)
    return folder / "dag.yaml"


def asked(stack: RunningStack, sql: str) -> list[str]:
    with QueryStream(stack.connection, sql, timeout=60.0) as stream:
        list(stream.batches())
        return stream.schema().names


def told(client: Connection, sql: str) -> list[str]:
    with client.cursor() as cursor:
        return cursor.adbc_execute_schema(sql).names


def catalogue(client: Connection) -> dict[str, list[str]]:
    (catalog,) = client.adbc_get_objects(depth="all", db_schema_filter="o").read_all().to_pylist()
    return {
        f"o.{table['table_name']}": [column["column_name"] for column in table["table_columns"]]
        for table in catalog["catalog_db_schemas"][0]["db_schema_tables"]
    }


def test_columns_have_one_order_everywhere(start_stack: Callable[..., RunningStack], document: Path) -> None:
    stack = start_stack()
    followed = stack.settle(stack.deploy(document))
    assert (followed.state.settled, followed.dead) == (True, 0), stack.logs()
    options = {
        DatabaseOptions.AUTHORIZATION_HEADER.value: f"Bearer {stack.home.token_file('user').read_text().strip()}"
    }
    with flight_sql.connect(f"grpc://{stack.endpoints.query}", options, autocommit=True) as client:

        def orders_hold() -> None:
            assert catalogue(client) == ORDERS
            for name, order in ORDERS.items():
                cursor = order[0] if name == "o.ranges" else "number"
                for where in ("", f"where {cursor} = 2", f"where {cursor} = 99"):  # all files, one, and none
                    sql = f"select * from {name} {where}"  # noqa: S608 - of these lists
                    assert asked(stack, sql) == told(client, sql) == order, sql

        orders_hold()
        row = [{"number": 2, "read": "number,miner,gas,fee", "a": 20}]
        assert stack.query("select * from o.seen where number = 2") == row, "as the code read it"
        schema = client.adbc_get_table_schema("shown", db_schema_filter="o")
        assert (schema.field("gas").metadata or {})[b"ARROW:FLIGHT:SQL:REMARKS"] == b"What it used."
        shown = stack.tracectl("dataset", "show", "o.blocks").stdout
        assert sorted(WRITTEN, key=lambda name: shown.index(f" {name} ", shown.index("Columns"))) == WRITTEN

        document.write_text(
            DOCUMENT.replace("{number: int64, miner: string, gas", "{miner: string, number: int64, gas")
        )
        planned = stack.tracectl("dag", "plan", str(document)).stdout
        assert "column_order" in planned
        assert "(no rebuild)" in planned
        stack.settle(stack.deploy(document))
        orders_hold()
