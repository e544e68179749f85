"""Arrow types and the words of a document: which Arrow type stands for a word, and which word an Arrow type is.

Types that differ in representation only (large strings, views, naive or coarser timestamps, 32- and 64-bit decimals)
are the same word and are converted without loss; everything else is another type.
"""

from collections.abc import Mapping

import pyarrow as pa

from kernel.column_types import MAX_DECIMAL_DIGITS, ColumnType, parse_column_type

_PLAIN: dict[str, pa.DataType] = {
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
    "timestamp": pa.timestamp("us", "UTC"),
}
_WORDS = {data_type: word for word, data_type in _PLAIN.items()}


class UnknownColumnType(ValueError):
    """A column has a type that no word of a document names."""


def arrow_schema(schema: Mapping[str, str]) -> pa.Schema:
    """The columns of a declaration, in its order."""
    return pa.schema([pa.field(name, arrow_type(parse_column_type(word))) for name, word in schema.items()])


def arrow_type(column: ColumnType) -> pa.DataType:
    """The one Arrow type in which columns of this type are stored."""
    if column.item is not None:
        return pa.list_(arrow_type(column.item))
    if column.word == "decimal":
        return pa.decimal128(column.precision, column.scale)
    return _PLAIN[column.word]


def stored_schema(schema: pa.Schema, declared: Mapping[str, str]) -> tuple[pa.Schema, dict[str, str]]:
    """How rows of this schema are stored, and the same in words. A column without a type of its own takes the
    declared one."""
    words: dict[str, str] = {}
    for field in schema:
        if field.name in words:
            raise UnknownColumnType(f"two columns are named {field.name!r}")
        if pa.types.is_null(field.type) and field.name in declared:
            words[field.name] = parse_column_type(declared[field.name]).canonical
        else:
            words[field.name] = _column_type(field.name, field.type).canonical
    return arrow_schema(words), words


def _column_type(name: str, data_type: pa.DataType) -> ColumnType:
    types = pa.types
    word = _WORDS.get(data_type)
    if word is not None:
        return ColumnType(word)
    if types.is_large_string(data_type) or types.is_string_view(data_type):
        return ColumnType("string")
    if types.is_large_binary(data_type) or types.is_binary_view(data_type) or types.is_fixed_size_binary(data_type):
        return ColumnType("binary")
    if types.is_timestamp(data_type):
        return ColumnType("timestamp")
    if types.is_date(data_type):
        return ColumnType("date")
    if (
        types.is_decimal(data_type)
        and data_type.precision <= MAX_DECIMAL_DIGITS
        and 0 <= data_type.scale <= data_type.precision
    ):
        return ColumnType("decimal", data_type.precision, data_type.scale)
    if types.is_list(data_type) or types.is_large_list(data_type) or types.is_fixed_size_list(data_type):
        return ColumnType("list", item=_column_type(name, data_type.value_type))
    raise UnknownColumnType(
        f"column {name!r} has the Arrow type {data_type}, which no column type of a document names: convert it"
    )
