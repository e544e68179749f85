"""Parameters: which values a text asks for, and of which types, before and after a client has bound them."""

from collections.abc import Iterator
from typing import Any

import adbc_driver_manager
import pyarrow as pa
import pytest
from adbc_driver_manager.dbapi import Connection

from tests.queryd.flight.clients import connect
from tests.queryd.harness import QuerydProcess


@pytest.fixture
def connection(queryd: QuerydProcess) -> Iterator[Connection]:
    with connect(queryd) as connection:
        yield connection


def _announced(connection: Connection, sql: str) -> list[tuple[str, pa.DataType]]:
    with connection.cursor() as cursor:
        schema = cursor.adbc_prepare(sql)
    assert schema is not None
    return [(field.name, field.type) for field in schema]


def _rows(connection: Connection, sql: str, values: Any) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(sql, values)
        return cursor.fetchall()


def test_a_value_is_announced_for_each_number_in_their_order(connection: Connection) -> None:
    many = ", ".join(f"${number}" for number in range(1, 13))
    assert [name for name, _ in _announced(connection, f"select {many}")] == [str(n) for n in range(1, 13)]
    assert [name for name, _ in _announced(connection, "select $3, $1")] == ["1", "2", "3"]
    assert _rows(connection, "select $3, $1", [1, 2, 3]) == [(3, 1)]
    assert [name for name, _ in _announced(connection, "select $b, $a, $b")] == ["a", "b"]


@pytest.mark.parametrize(
    ("sql", "types"),
    [
        ('select number from "eth.blocks" where number between ? and ?', [pa.int64(), pa.int64()]),
        ('select 1 from "eth.blocks" where miner = ? or difficulty > ?', [pa.string(), pa.decimal128(38, 0)]),
        ("select 1 from eth.blocks b where ? < b.time", [pa.timestamp("ms", tz="UTC")]),
        ("select * from eth.miners where blocks > ?", [pa.int64()]),
        ('select * from eth.empty where fee = ? or "at" = ?', [pa.decimal128(20, 2), pa.timestamp("ms", tz="UTC")]),
        ("select lo from (select 1 lo) where lo = ? limit ?", [pa.int32(), pa.int64()]),
        ("select ?::date, ?::blob, ?::boolean, ?::double", [pa.date32(), pa.binary(), pa.bool_(), pa.float64()]),
        ("select ? + 1", [pa.string()]),
        ("select ? + 1, number from eth.blocks where number = ?", [pa.string(), pa.int64()]),
        ("select $x, number from eth.blocks where number = $y", [pa.string(), pa.int64()]),
    ],
)
def test_a_parameter_has_the_type_of_what_it_is_compared_with(
    connection: Connection, sql: str, types: list[pa.DataType]
) -> None:
    """Clients that make room for values by these types (JDBC's) could give none where all of them were null."""
    assert [type_ for _, type_ in _announced(connection, sql)] == types


@pytest.mark.parametrize("value", [3, "3", 3.0])
def test_values_of_other_types_than_announced_are_taken(connection: Connection, value: object) -> None:
    """ADBC binds what it has. A text is read as what it is compared with."""
    sql = 'select number from "eth.blocks" where number = ?'
    assert _announced(connection, sql) == [("1", pa.int64())]
    assert _rows(connection, sql, [value]) == [(3,)]
    given = pa.record_batch({"0": pa.array([3], pa.uint8())})
    assert _rows(connection, sql, given) == [(3,)]


def test_a_text_that_cannot_be_the_number_is_an_error_that_says_so(connection: Connection) -> None:
    with pytest.raises(adbc_driver_manager.Error, match="Could not convert string 'three' to INT64"):
        _rows(connection, 'select number from "eth.blocks" where number = ?', ["three"])
    with pytest.raises(adbc_driver_manager.Error, match="please add explicit type casts"):
        _rows(connection, "select ? + 1", ["3"])
    assert _rows(connection, "select ?::bigint + 1", ["3"]) == [(4,)]
