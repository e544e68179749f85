"""The words of declared columns, for people's tools: as Arrow fields, and as the types of ODBC and JDBC."""

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from kernel.column_types import ColumnType, parse_column_type

_ARROW: dict[str, pa.DataType] = {
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


def arrow_schema(columns: Mapping[str, str], comments: Mapping[str, str], table: Mapping[str, str]) -> pa.Schema:
    """The columns in their order. `table` is what is said of each column about its table."""
    return pa.schema([_field(name, word, comments.get(name, ""), table) for name, word in columns.items()])


def flight_metadata(facts: Mapping[str, str]) -> dict[bytes | str, bytes | str]:
    """Facts under the names that Flight SQL gives them."""
    return {f"ARROW:FLIGHT:SQL:{key}": value for key, value in facts.items()}


def arrow_type(type_: ColumnType) -> pa.DataType:
    """As a query answers a column of this type."""
    if type_.item is not None:
        return pa.list_(arrow_type(type_.item))
    if type_.word == "decimal":
        return pa.decimal128(type_.precision, type_.scale)
    return _ARROW[type_.word]


def _field(name: str, word: str, comment: str, table: Mapping[str, str]) -> "pa.Field[Any]":
    type_ = parse_column_type(word)
    metadata = {**table, "TYPE_NAME": type_.duckdb, "IS_READ_ONLY": "1", "IS_AUTO_INCREMENT": "0"}
    if type_.word == "decimal":
        metadata |= {"PRECISION": str(type_.precision), "SCALE": str(type_.scale)}
    if comment:
        metadata["REMARKS"] = comment
    return pa.field(name, arrow_type(type_), metadata=flight_metadata(metadata))
