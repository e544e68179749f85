"""Analysts' drivers at a whole stack: what they list, what they read, and a state that they come back to."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import adbc_driver_flightsql.dbapi as flight_sql
import adbc_driver_manager
import pytest
from adbc_driver_manager.dbapi import Connection

from tests.acceptance.conftest import RunningStack

pytestmark = pytest.mark.acceptance

_HEADER = "adbc.flight.sql.rpc.call_header."
_DOCUMENT = """
dag: prices
jobs:
  days:
    source: replay
    config: {path: days.csv, cursor: day}
    outputs:
      p.days: {cursor: {column: day, type: int64}, schema: {day: int64, price: "decimal(20,2)", coin: string}}
  cheap:
    virtual: {sql: 'select day, price from "p.days" where price < 5 -- FACTOR'}
    outputs: {p.cheap: {}}
"""
_COUNT = "select count(*) from p.cheap where day < $1"


@pytest.fixture
def document(tmp_path: Path) -> Path:
    folder = tmp_path / "prices"
    folder.mkdir()
    (folder / "days.csv").write_text("day,price,coin\n" + "".join(f"{day},{day}.50,eth\n" for day in range(10)))
    (folder / "dag.yaml").write_text(_DOCUMENT)
    return folder / "dag.yaml"


def test_a_driver_lists_reads_and_comes_back_to_a_state(
    start_stack: Callable[..., RunningStack], document: Path
) -> None:
    stack = start_stack()
    stack.settle(stack.deploy(document))
    with _connection(stack) as connection:
        assert _tables(connection) == {"days": "TABLE", "cheap": "VIEW"}
        assert _count(connection, 3) == 3
        before = _deploy_number(stack)
        pin = _pin_of_the_latest_query(stack)
        document.write_text(_DOCUMENT.replace("price < 5 -- FACTOR", "price < 2"))
        stack.settle(stack.deploy(document))
        assert _deploy_number(stack) > before
        assert [_count(connection, 9), _count(connection, 9, before), _count(connection, 9, pin)] == [2, 5, 5]
        again = stack.tracectl("query", _COUNT.replace("$1", "9"), "--as-of", pin, "--output", "csv")
        assert (again.returncode, again.stdout.split()) == (0, ["count_star()", "5"]), again.stderr
        with pytest.raises(adbc_driver_manager.Error, match=f"there is no deploy {before + 9} yet"):
            _count(connection, 9, before + 9)


def _connection(stack: RunningStack) -> Connection:
    token = stack.home.token_file("user").read_text(encoding="utf-8").strip()
    options = {"adbc.flight.sql.authorization_header": f"Bearer {token}"}
    return flight_sql.connect(f"grpc://{stack.endpoints.query}", options, autocommit=True)


def _tables(connection: Connection) -> dict[str, str]:
    """By name, the kind of each."""
    catalogs = connection.adbc_get_objects(depth="tables").read_all().to_pylist()
    schemas = [schema for catalog in catalogs for schema in catalog["catalog_db_schemas"]]
    assert {schema["db_schema_name"] for schema in schemas} == {"p"}
    return {table["table_name"]: table["table_type"] for schema in schemas for table in schema["db_schema_tables"]}


def _count(connection: Connection, day: int, as_of: int | str | None = None) -> int:
    with connection.cursor() as cursor:
        if as_of is not None:
            cursor.adbc_statement.set_options(**{f"{_HEADER}trace-as-of": str(as_of)})
        cursor.execute(_COUNT, (day,))
        row = cursor.fetchone()
        assert row is not None
        return int(row[0])


def _deploy_number(stack: RunningStack) -> int:
    return int(_latest(stack)["deployNumber"])


def _pin_of_the_latest_query(stack: RunningStack) -> str:
    shown = stack.tracectl("queries", "show", str(_latest(stack)["queryId"])).stdout
    return next(line.split()[1] for line in shown.splitlines() if line.startswith("--as-of "))


def _latest(stack: RunningStack) -> dict[str, Any]:
    """The record of a query that is asked for it."""
    asked = stack.tracectl("query", _COUNT.replace("$1", "9"))
    assert asked.returncode == 0, asked.stderr
    history = stack.tracectl("queries", "history", "-n", "1", "--output", "json").stdout
    [found] = json.loads(history)["records"]
    return dict(found)
