"""Values of a text's parameters: from one row of Arrow to what the engine takes, their types kept."""

from collections.abc import Sequence
from typing import Any

import duckdb
import pyarrow as pa

from queryd.terms import Constant

Bound = list[duckdb.Value | None] | dict[str, duckdb.Value | None]
"""Values in order, for parameters with all numbers from 1; by name for others."""


class ParameterError(ValueError):
    """The values are not those of the text; the message is for people."""


def bound(connection: duckdb.DuckDBPyConnection, wanted: Sequence[str], table: pa.Table | None) -> Bound:
    """The values for a text whose parameters are `wanted`, "1" to "n" or names. Raises ParameterError."""
    if table is None or table.num_columns == 0:
        if wanted:
            raise ParameterError(f"the text has {_list(wanted)}, and no values came with it")
        return []
    if not wanted:
        raise ParameterError(f"the text has no parameters, and {table.num_columns} values came with it")
    if table.num_rows != 1:
        raise ParameterError(f"values of parameters are one row, and {table.num_rows:,} rows came: run once for each")
    values = _values(connection, table)
    if _numbered(wanted):
        if len(values) != len(in_order(wanted)):
            raise ParameterError(f"the text has {_list(wanted)}, and {len(values)} values came with it")
        return _at(wanted, values)
    if sorted(table.column_names) != sorted(wanted):  # a name that comes twice has no value
        raise ParameterError(f"the text has {_list(wanted)}, and values came for {', '.join(table.column_names)}")
    return dict(zip(table.column_names, values, strict=True))


def unbound(wanted: Sequence[str]) -> Bound:
    """Nulls, with which a text can be described before its values are known."""
    return _at(wanted, [None] * len(in_order(wanted))) if _numbered(wanted) else dict.fromkeys(wanted)


def in_order(wanted: Sequence[str]) -> list[str]:
    """For which parameters values have to come: numbers are counted from 1 to the last one, used or not."""
    if _numbered(wanted):
        return [str(number) for number in range(1, max(map(int, wanted), default=0) + 1)]
    return sorted(wanted)


def constants(table: pa.Table) -> dict[str, Constant]:
    """Those values that can be compared with a cursor, by number and by name."""
    found: dict[str, Constant] = {}
    for position, (name, column) in enumerate(zip(table.column_names, table.columns, strict=True), start=1):
        constant = _constant(column) if table.num_rows == 1 else None
        if constant is not None:
            found[str(position)] = constant
            if not name.isdecimal():  # drivers number columns from 0: "1" is the second one, and $1 the first
                found[name] = constant
    return found


def _numbered(wanted: Sequence[str]) -> bool:
    return all(name.isdecimal() for name in wanted)


def _at(wanted: Sequence[str], values: list[duckdb.Value | None]) -> Bound:
    """Those at the numbers that the text has: the engine takes no value for one that it has not."""
    if len(wanted) == len(values):
        return values
    return {number: values[int(number) - 1] for number in wanted}


def _constant(column: "pa.ChunkedArray[Any]") -> Constant | None:
    value = column[0]
    if not value.is_valid:
        return None
    if pa.types.is_integer(column.type):
        return Constant("INTEGER", str(value.as_py()))
    if pa.types.is_string(column.type):
        return Constant("STRING", value.as_py())
    if pa.types.is_date32(column.type) or (pa.types.is_timestamp(column.type) and column.type.unit != "ns"):
        return Constant("STRING", value.as_py().isoformat())
    return None


def _values(connection: duckdb.DuckDBPyConnection, table: pa.Table) -> list[duckdb.Value | None]:
    values: list[duckdb.Value | None] = []
    for column, type_ in zip(table.columns, connection.from_arrow(table).types, strict=True):
        if pa.types.is_timestamp(column.type):  # Python's times have microseconds; what has more is refused
            column = column.cast(pa.timestamp("us", column.type.tz))
        value = column[0].as_py()
        values.append(None if value is None else duckdb.Value(value, type_))
    return values


def _list(wanted: Sequence[str]) -> str:
    shown = ", ".join(f"${name}" for name in sorted(wanted, key=lambda name: (len(name), name)))
    return f"the parameter {shown}" if len(wanted) == 1 else f"the parameters {shown}"
