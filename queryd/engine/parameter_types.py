"""Types of a text's parameters, before their values are known: clients that make room for values by type ask for them.

The engine's own binder says them, in the plan that it makes of the text. It tells no plan that reads files, so views
without rows take the place of those that do: nothing is run in this session any more. And it says none of a text with a
parameter that could be of several types (`? + 1`, `range(?)`); such a text is asked about each parameter alone. What
has no one type is text: the engine reads a text as what it is compared with, and `?::bigint` says what is meant.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import duckdb
import pyarrow as pa

from kernel.dataset_sql import quoted
from queryd.engine.parameters import in_order
from queryd.gate import parsed

# Each one that has to be asked about alone takes a plan; beyond these nobody waits for them.
_MOST_ALONE = 32
_COLUMNS = """
SELECT schema_name, table_name, list(column_name ORDER BY column_index), list(data_type ORDER BY column_index)
FROM duckdb_columns() WHERE NOT internal AND (schema_name, table_name) IN
    (SELECT (schema_name, view_name) FROM duckdb_views() WHERE NOT internal)
GROUP BY ALL
"""
_TEXT = pa.string()
_TYPES: Mapping[str, pa.DataType] = {
    "BOOLEAN": pa.bool_(),
    "TINYINT": pa.int8(),
    "SMALLINT": pa.int16(),
    "INTEGER": pa.int32(),
    "BIGINT": pa.int64(),
    "UTINYINT": pa.uint8(),
    "USMALLINT": pa.uint16(),
    "UINTEGER": pa.uint32(),
    "UBIGINT": pa.uint64(),
    "HUGEINT": pa.decimal128(38, 0),
    "FLOAT": pa.float32(),
    "DOUBLE": pa.float64(),
    "BLOB": pa.binary(),
    "DATE": pa.date32(),
    # The JDBC driver writes milliseconds, whatever the unit is: those of 2024 would be microseconds of 1970.
    "TIME": pa.time32("ms"),
    "TIMESTAMP": pa.timestamp("ms"),
    "TIMESTAMP WITH TIME ZONE": pa.timestamp("ms", tz="UTC"),
}


def parameter_schema(connection: duckdb.DuckDBPyConnection, sql: str, wanted: Sequence[str]) -> pa.Schema:
    """A field for each value that has to come: for numbers from 1 without a gap, in their order; else by name.

    The text has passed the gate, and what it reads is there; after this, without rows.
    """
    _empty_views(connection)
    types = _planned(connection, sql)
    if types is None:
        types = {}
        for name in list(wanted)[:_MOST_ALONE] if len(wanted) > 1 else ():
            types |= _planned(connection, _alone(connection, sql, name)) or {}
    return pa.schema([pa.field(name, types.get(name, _TEXT)) for name in in_order(wanted)])


def _empty_views(connection: duckdb.DuckDBPyConnection) -> None:
    for schema, name, columns, types in connection.execute(_COLUMNS).fetchall():
        nulls = ", ".join(
            f"CAST(NULL AS {type_}) AS {quoted(column)}" for column, type_ in zip(columns, types, strict=True)
        )
        connection.execute(f"CREATE OR REPLACE VIEW {quoted(schema)}.{quoted(name)} AS SELECT {nulls} WHERE false")


def _planned(connection: duckdb.DuckDBPyConnection, sql: str) -> Mapping[str, pa.DataType] | None:
    """None where the engine has no plan that it could tell."""
    try:
        row = connection.execute("SELECT json_serialize_plan(?::VARCHAR)", [sql]).fetchone()
    except duckdb.Error:
        return None
    plan: Any = json.loads(row[0]) if row else {"error": True}
    return None if plan.get("error") else {name: _type(type_) for name, type_ in _parameters(plan["plans"])}


def _alone(connection: duckdb.DuckDBPyConnection, sql: str, name: str) -> str:
    """The text with nothing in the place of each other parameter."""
    nothing = parsed(connection, "SELECT NULL")["node"]["select_list"][0]
    statement = _replaced(parsed(connection, sql), name, nothing)
    text = json.dumps({"error": False, "statements": [statement]})
    row = connection.execute("SELECT json_deserialize_sql(?::JSON)", [text]).fetchone()
    return str(row[0]) if row else sql


def _replaced(value: Any, name: str, nothing: Any) -> Any:
    if isinstance(value, list):
        return [_replaced(item, name, nothing) for item in value]
    if not isinstance(value, dict):
        return value
    if value.get("class") == "PARAMETER" and value["identifier"] != name:
        return {**nothing, "alias": value.get("alias", "")}
    return {key: _replaced(child, name, nothing) for key, child in value.items()}


def _parameters(value: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if isinstance(value, list):
        for item in value:
            yield from _parameters(item)
    elif isinstance(value, dict):
        if value.get("type") == "VALUE_PARAMETER":
            yield str(value["identifier"]), value["return_type"]
        for child in value.values():
            yield from _parameters(child)


def _type(type_: Mapping[str, Any]) -> pa.DataType:
    if type_["id"] == "DECIMAL" and type_["type_info"]:
        return pa.decimal128(type_["type_info"]["width"], type_["type_info"]["scale"])
    return _TYPES.get(type_["id"], _TEXT)
