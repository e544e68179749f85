"""The words of columns as Arrow types, and casts that lose nothing."""

from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from kernel.column_types import parse_column_type
from tracesdk import SchemaMismatch
from tracesdk.arrow_types import arrow_type, cast_batch, output_schema, type_word

_WORDS = [
    *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float", "double"),
    *("string", "binary", "date", "timestamp", "decimal(38,0)", "decimal(5,5)", "list<list<decimal(10,2)>>"),
]


def cast(array: "pa.Array[Any]", word: str) -> "pa.Array[Any]":
    batch = pa.record_batch({"c": array})
    return cast_batch("out", batch, output_schema("out", batch.schema, {"c": word})).column("c")


@pytest.mark.parametrize("word", _WORDS)
def test_words_and_types_are_one_to_one_and_the_contracts_own(word: str) -> None:
    assert type_word(arrow_type(word)) == word == parse_column_type(word).canonical


@pytest.mark.parametrize("word", ["integer", "decimal(39,0)", "decimal(5,6)", "decimal(0,0)", "list<>", "", "list<x>"])
def test_other_words_are_refused(word: str) -> None:
    with pytest.raises(ValueError, match="is not known"):
        arrow_type(word)


@pytest.mark.parametrize(
    ("array", "word", "values"),
    [
        (pa.array([1, None]), "int8", [1, None]),
        (pa.array([1, 2**63 - 1]), "decimal(38,0)", [Decimal(1), Decimal(2**63 - 1)]),
        (pa.array([2**64 - 1], pa.uint64()), "decimal(38,18)", [Decimal(2**64 - 1)]),
        (pa.array([7]), "decimal(3,1)", [Decimal(7)]),
        (pa.array([Decimal(7)], pa.decimal128(38, 0)), "int64", [7]),
        (pa.array([Decimal("7.50")], pa.decimal128(38, 2)), "decimal(5,1)", [Decimal("7.5")]),
        (pa.array([1.5], pa.float32()), "double", [1.5]),
        (pa.array([None, None]), "timestamp", [None, None]),
        (pa.array(["a", "b", "a"]).dictionary_encode(), "string", ["a", "b", "a"]),
        (pa.array(["a"], pa.large_string()), "string", ["a"]),
        (pa.array([b"ab"], pa.binary(2)), "binary", [b"ab"]),
        (pa.array([[1], None], pa.large_list(pa.int32())), "list<int64>", [[1], None]),
        (pa.array([date(2020, 1, 1)], pa.date64()), "date", [date(2020, 1, 1)]),
    ],
)
def test_what_keeps_its_meaning_is_cast(array: "pa.Array[Any]", word: str, values: list[Any]) -> None:
    found = cast(array, word)
    assert found.type == arrow_type(word)
    assert found.to_pylist() == values


@pytest.mark.parametrize("kind", [pa.timestamp("s"), pa.timestamp("us", tz="Asia/Tokyo"), pa.timestamp("ns", tz="UTC")])
def test_times_of_any_kind_are_points_in_time(kind: pa.DataType) -> None:
    moment = datetime(2020, 1, 1, tzinfo=UTC)
    found = cast(pa.array([int(moment.timestamp())]).cast(pa.timestamp("s")).cast(kind), "timestamp")
    assert found.cast(pa.int64()).to_pylist() == [int(moment.timestamp()) * 1_000_000]


@pytest.mark.parametrize(
    ("array", "word"),
    [
        (pa.array([128]), "int8"),
        (pa.array([-1]), "uint64"),
        (pa.array([1000]), "decimal(3,0)"),
        (pa.array([Decimal("1.5")]), "int64"),
        (pa.array([Decimal("1.25")]), "decimal(3,1)"),
        (pa.array([1], pa.timestamp("ns")), "timestamp"),
        (pa.array(["1"]), "int64"),
        (pa.array([1]), "string"),
        (pa.array([1.0]), "int64"),
        (pa.array([1.5]), "float"),
        (pa.array([1.5]), "decimal(3,1)"),
        (pa.array([1]), "double"),
        (pa.array([1]), "bool"),
        (pa.array([b"a"]), "string"),
        (pa.array([[1]]), "int64"),
        (pa.array([1]), "list<int64>"),
    ],
)
def test_what_would_be_lost_or_guessed_is_refused(array: "pa.Array[Any]", word: str) -> None:
    with pytest.raises(SchemaMismatch) as raised:
        cast(array, word)
    assert (raised.value.column, raised.value.found, raised.value.declared) == ("c", type_word(array.type), word)


@pytest.mark.parametrize(
    ("names", "said"),
    [(["a"], "column 'b'.*no such column"), (["a", "b", "c"], "column 'c'"), (["a", "b", "a"], "column 'a'.*twice")],
)
def test_columns_must_be_the_declared_ones(names: list[str], said: str) -> None:
    with pytest.raises(SchemaMismatch, match=said):
        output_schema("out", pa.schema([(name, pa.int64()) for name in names]), {"a": "int64", "b": "int64"})


def test_undeclared_columns_take_the_nearest_word() -> None:
    found = pa.schema(
        [
            ("text", pa.large_string()),
            ("kind", pa.dictionary(pa.int32(), pa.string())),
            ("at", pa.timestamp("ns")),
            ("hash", pa.binary(32)),
            ("list", pa.large_list(pa.string())),
            ("number", pa.decimal128(38, 0)),
        ]
    )
    words = [type_word(field.type) for field in output_schema("out", found, {})]
    assert words == ["string", "string", "timestamp", "binary", "list<string>", "decimal(38,0)"]


@pytest.mark.parametrize("make", [lambda: pa.struct([("a", pa.int64())]), lambda: pa.time64("us"), lambda: pa.null()])
def test_a_type_that_no_column_can_have_is_refused(make: Callable[[], pa.DataType]) -> None:
    with pytest.raises(SchemaMismatch, match="a type that columns can have"):
        output_schema("out", pa.schema([("c", make())]), {})
