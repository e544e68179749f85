"""The words in which columns are declared, as Arrow types; and casts that lose nothing.

The words: bool, int8 to int64, uint8 to uint64, float, double, string, binary, date, timestamp (a point in time, UTC,
microseconds), "decimal(p,s)" up to 38 digits, and "list<T>".

A cast is strict: within a family of types (integers and decimals, floats that widen, text, times), and only where every
value keeps its meaning. Numbers are not read from text, nor decimals from floats: an operator says so itself.
"""

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import pyarrow as pa

from tracesdk.errors import SchemaMismatch

_SIMPLE: Mapping[str, pa.DataType] = {
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
}
_WORDS: Mapping[pa.DataType, str] = {kind: word for word, kind in _SIMPLE.items()}
_DECIMAL = re.compile(r"decimal\(\s*([0-9]{1,2})\s*,\s*([0-9]{1,2})\s*\)")
_LIST = re.compile(r"list<\s*(.*?)\s*>", re.DOTALL)
# Enough digits for any 64-bit integer; pyarrow casts integers to no narrower decimal.
_ANY_INTEGER = pa.decimal128(20, 0)


@lru_cache(maxsize=4096)
def arrow_type(word: str) -> pa.DataType:
    """The Arrow type of a declared column; ValueError for a word that is not one."""
    text = word.strip()
    if text in _SIMPLE:
        return _SIMPLE[text]
    decimal = _DECIMAL.fullmatch(text)
    if decimal and 1 <= int(decimal[1]) <= 38 and int(decimal[2]) <= int(decimal[1]):
        return pa.decimal128(int(decimal[1]), int(decimal[2]))
    listed = _LIST.fullmatch(text)
    if listed:
        return pa.list_(arrow_type(listed[1]))
    raise ValueError(f"column type {word!r} is not known")


def type_word(kind: pa.DataType) -> str:
    """The word for an Arrow type; Arrow's own name for a type that no column can have."""
    if pa.types.is_decimal128(kind):
        return f"decimal({kind.precision},{kind.scale})"
    if pa.types.is_list(kind):
        return f"list<{type_word(kind.value_type)}>"
    return _WORDS.get(kind, str(kind))


def arrow_types(schema: Mapping[str, str]) -> dict[str, pa.DataType]:
    """The declared columns by name."""
    return {name: arrow_type(word) for name, word in schema.items()}


def output_schema(dataset: str, found: pa.Schema, declared: Mapping[str, str]) -> pa.Schema:
    """The schema in which rows of `found` are written: its columns in its order, with the declared types.

    Where nothing is declared, the nearest types that have a word. Raises SchemaMismatch for a column that is missing,
    is not declared, is there twice, or cannot be cast.
    """
    names = set(found.names)
    if len(names) != len(found.names):
        twice = next(name for name in found.names if found.names.count(name) > 1)
        raise SchemaMismatch(dataset, twice, "the column twice", "it once")
    for name in declared:
        if name not in names:
            raise SchemaMismatch(dataset, name, "no such column", declared[name])
    fields = []
    for field in found:
        if declared and field.name not in declared:
            raise SchemaMismatch(dataset, field.name, type_word(field.type), "no such column")
        wanted = arrow_type(declared[field.name]) if declared else _nearest(dataset, field)
        if not _same_family(field.type, wanted):
            raise SchemaMismatch(dataset, field.name, type_word(field.type), type_word(wanted))
        fields.append(pa.field(field.name, wanted))
    return pa.schema(fields)


def cast_batch(dataset: str, batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """The batch in `schema`, which `output_schema` made from its own. Raises SchemaMismatch where a value is lost."""
    if batch.schema.equals(schema):
        return batch
    columns = []
    for column, field in zip(batch.columns, schema, strict=True):
        try:
            columns.append(_cast(column, field.type))
        except pa.ArrowException as error:
            found, declared = type_word(column.type), type_word(field.type)
            raise SchemaMismatch(dataset, field.name, found, declared, str(error)) from error
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _cast(column: "pa.Array[Any]", wanted: pa.DataType) -> "pa.Array[Any]":
    if column.type.equals(wanted):
        return column
    if pa.types.is_dictionary(column.type):
        decoded: pa.Array[Any] = column.cast(column.type.value_type)
        return _cast(decoded, wanted)
    if pa.types.is_integer(column.type) and pa.types.is_decimal(wanted) and wanted.precision - wanted.scale < 20:
        column = column.cast(_ANY_INTEGER)
    return column.cast(wanted)


def _same_family(found: Any, wanted: Any) -> bool:
    if found.equals(wanted) or pa.types.is_null(found):
        return True
    if pa.types.is_dictionary(found):
        return _same_family(found.value_type, wanted)
    if _is_list(found) and pa.types.is_list(wanted):
        return _same_family(found.value_type, wanted.value_type)
    if _is_exact_number(found):
        return _is_exact_number(wanted)
    if pa.types.is_floating(found):
        return pa.types.is_float64(wanted) or (pa.types.is_float32(wanted) and pa.types.is_float16(found))
    if _is_text(found):
        return pa.types.is_string(wanted)
    if _is_bytes(found):
        return pa.types.is_binary(wanted)
    if pa.types.is_date(found):
        return pa.types.is_date32(wanted)
    return bool(pa.types.is_timestamp(found) and pa.types.is_timestamp(wanted))


def _nearest(dataset: str, field: "pa.Field[Any]") -> pa.DataType:
    """The type with a word that is nearest to an undeclared column's."""
    kind: Any = field.type
    plain: pa.DataType = field.type
    if plain in _WORDS or pa.types.is_decimal128(plain):
        return plain
    if pa.types.is_dictionary(kind):
        return _nearest(dataset, pa.field(field.name, kind.value_type))
    if _is_list(kind):
        return pa.list_(_nearest(dataset, pa.field(field.name, kind.value_type)))
    for test, word in ((_is_text, "string"), (_is_bytes, "binary")):
        if test(kind):
            return _SIMPLE[word]
    if pa.types.is_timestamp(kind):
        return _SIMPLE["timestamp"]
    if pa.types.is_date(kind):
        return _SIMPLE["date"]
    raise SchemaMismatch(dataset, field.name, type_word(kind), "a type that columns can have")


def _is_exact_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_decimal(kind))


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _is_bytes(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
        or pa.types.is_fixed_size_binary(kind)
        or pa.types.is_binary_view(kind)
    )
