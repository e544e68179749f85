"""The words for columns: what they mean to DuckDB, and what a schema's digest is."""

import hashlib

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kernel.column_types import is_order_of, ordered_columns, parse_column_type, schema_digest

ARROW: dict[str, pa.DataType] = {
    "bool": pa.bool_(),
    "int8": pa.int8(),
    "int16": pa.int16(),
    "int32": pa.int32(),
    "int64": pa.int64(),
    "uint8": pa.uint8(),
    "uint16": pa.uint16(),
    "uint32": pa.uint32(),
    "uint64": pa.uint64(),
    "float": pa.float32(),
    "double": pa.float64(),
    "string": pa.string(),
    "binary": pa.binary(),
    "date": pa.date32(),
    "timestamp": pa.timestamp("us", tz="UTC"),
    "decimal(38,0)": pa.decimal128(38, 0),
    "decimal(9,2)": pa.decimal128(9, 2),
    "list<int64>": pa.list_(pa.int64()),
    "list<list<decimal(5,1)>>": pa.list_(pa.list_(pa.decimal128(5, 1))),
}


@pytest.mark.parametrize("text", ARROW)
def test_a_parquet_column_is_read_as_the_type_that_its_word_names(text: str, tmp_path: object) -> None:
    file = f"{tmp_path}/column.parquet"
    pq.write_table(pa.table({"c": pa.array([], ARROW[text])}), file)
    with duckdb.connect() as engine:
        read = engine.execute("select * from read_parquet(?)", [file]).description
        named = engine.execute(f"select null::{parse_column_type(text).duckdb} as c").description
    assert read is not None
    assert named is not None
    assert read[0][1] == named[0][1]


@pytest.mark.parametrize("text", ARROW)
def test_a_canonical_word_is_its_own(text: str) -> None:
    assert parse_column_type(text).canonical == text
    assert parse_column_type(f" {text} ") == parse_column_type(text)


def test_spaces_within_a_type_mean_nothing() -> None:
    assert parse_column_type("list< decimal( 38 , 0 ) >").canonical == "list<decimal(38,0)>"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "use one of: bool, int8"),
        ("integer", "is not known"),
        ("INT64", "is not known"),
        ("list<>", "is not known"),
        ("list<int>", "'int' is not known"),
        ("list<int64", "is not known"),
        ("decimal", "is not known"),
        ("decimal(10)", "is not known"),
        ("decimal(0,0)", "from 1 to 38"),
        ("decimal(5,6)", "from 0 to the precision"),
        ("decimal(39,0)", r"at most 38 digits; use decimal\(38,0\)"),
        ("decimal(76,40)", r"use decimal\(38,38\)"),
        ("decimal(78,0)", r"use decimal\(38,0\), or a string or binary"),
        ("list<" * 9 + "int64" + ">" * 9, "8 deep"),
    ],
)
def test_another_word_is_refused_with_a_remedy(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        parse_column_type(text)


def test_the_digest_is_of_sorted_lines() -> None:
    schema = {"number": "int64", "hash": "string", "é": "decimal( 38, 0)"}
    text = "hash:string\nnumber:int64\né:decimal(38,0)\n"
    assert schema_digest(schema) == hashlib.sha256(text.encode()).digest()


def test_the_digest_does_not_depend_on_order_or_spelling() -> None:
    assert schema_digest({"a": "bool", "b": "list<date>"}) == schema_digest({"b": " list< date >", "a": "bool"})
    assert schema_digest({"a": "bool"}) != schema_digest({"A": "bool"})
    assert schema_digest({}) == hashlib.sha256(b"").digest()


@pytest.mark.parametrize("name", ["", "a\nb", "\x00", "a\x7f"])
def test_a_column_name_that_could_hide_another_column_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="column name"):
        schema_digest({name: "bool"})


@pytest.mark.parametrize("order", [[], ["b"], ["b", "a", "b"], ["b", "b"], ["b", "c"], ["b", "a", "c"]])
def test_what_does_not_name_each_column_once_is_no_order(order: list[str]) -> None:
    schema = {"b": "int64", "a": "string"}
    assert not is_order_of(order, schema)
    assert list(ordered_columns(schema, order).items()) == [("a", "string"), ("b", "int64")]


@pytest.mark.parametrize("order", [["b", "a"], ["a", "b"]])
def test_columns_have_the_order_that_is_recorded(order: list[str]) -> None:
    assert list(ordered_columns({"a": "string", "b": "int64"}, order)) == order
