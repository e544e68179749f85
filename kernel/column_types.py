"""The words in which columns are declared, frozen and compared; their place in DuckDB; the digest and the
order of a schema.

The words: bool, int8 to int64, uint8 to uint64, float, double, string, binary, date, timestamp (a point in time, UTC,
microseconds), "decimal(p,s)" and "list<T>". Two columns are of one type exactly when their canonical words are equal.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

MAX_DECIMAL_DIGITS = 38
_MAX_LIST_DEPTH = 8

_DUCKDB = {
    "bool": "BOOLEAN",
    "int8": "TINYINT",
    "int16": "SMALLINT",
    "int32": "INTEGER",
    "int64": "BIGINT",
    "uint8": "UTINYINT",
    "uint16": "USMALLINT",
    "uint32": "UINTEGER",
    "uint64": "UBIGINT",
    "float": "FLOAT",
    "double": "DOUBLE",
    "string": "VARCHAR",
    "binary": "BLOB",
    "date": "DATE",
    "timestamp": "TIMESTAMP WITH TIME ZONE",
}
_WORDS = ", ".join([*_DUCKDB, "decimal(p,s)", "list<T>"])
_DECIMAL = re.compile(r"decimal\(\s*([0-9]{1,3})\s*,\s*([0-9]{1,3})\s*\)", re.ASCII)
_LIST = re.compile(r"list<\s*(.*?)\s*>", re.DOTALL)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class ColumnType:
    """A column's type. `precision` and `scale` belong to decimals, `item` to lists."""

    word: str
    precision: int = 0
    scale: int = 0
    item: Self | None = None

    @property
    def canonical(self) -> str:
        """The one spelling of this type."""
        if self.item is not None:
            return f"list<{self.item.canonical}>"
        if self.word == "decimal":
            return f"decimal({self.precision},{self.scale})"
        return self.word

    @property
    def duckdb(self) -> str:
        """The type as DuckDB's SQL writes it."""
        if self.item is not None:
            return f"{self.item.duckdb}[]"
        if self.word == "decimal":
            return f"DECIMAL({self.precision},{self.scale})"
        return _DUCKDB[self.word]


def parse_column_type(text: str) -> ColumnType:
    """The type that `text` names; ValueError says what would be right."""
    return _parse(text.strip(), 0)


def schema_digest(schema: Mapping[str, str]) -> bytes:
    """SHA-256 of the schema's canonical text: lines `name:type`, each ended by a line feed, sorted by name."""
    lines = []
    for name in sorted(schema):
        if not name or _CONTROL.search(name):
            raise ValueError(f"column name {name!r}: must not be empty nor have control characters")
        lines.append(f"{name}:{parse_column_type(schema[name]).canonical}\n")
    return hashlib.sha256("".join(lines).encode()).digest()


def is_order_of(order: Sequence[str], schema: Mapping[str, str]) -> bool:
    """Whether `order` names each column of `schema` once."""
    return len(order) == len(schema) and schema.keys() == set(order)


def ordered_columns(schema: Mapping[str, str], order: Sequence[str]) -> dict[str, str]:
    """The columns in their order; by name where none is known, for a map of a message or a table has none itself."""
    names = order if is_order_of(order, schema) else sorted(schema)
    return {name: schema[name] for name in names}


def _parse(text: str, depth: int) -> ColumnType:
    if text in _DUCKDB:
        return ColumnType(text)
    decimal = _DECIMAL.fullmatch(text)
    if decimal:
        return _decimal(text, int(decimal[1]), int(decimal[2]))
    listed = _LIST.fullmatch(text)
    if listed:
        if depth == _MAX_LIST_DEPTH:
            raise ValueError(f"column type {text!r}: lists may be {_MAX_LIST_DEPTH} deep")
        return ColumnType("list", item=_parse(listed[1], depth + 1))
    raise ValueError(f"column type {text!r} is not known; use one of: {_WORDS}")


def _decimal(text: str, precision: int, scale: int) -> ColumnType:
    if precision > MAX_DECIMAL_DIGITS:
        raise ValueError(
            f"column type {text!r}: a decimal has at most {MAX_DECIMAL_DIGITS} digits; use "
            f"decimal({MAX_DECIMAL_DIGITS},{min(scale, MAX_DECIMAL_DIGITS)}), or a string or binary column"
        )
    if not 1 <= precision <= MAX_DECIMAL_DIGITS:
        raise ValueError(f"column type {text!r}: the precision must be from 1 to {MAX_DECIMAL_DIGITS}")
    if scale > precision:
        raise ValueError(f"column type {text!r}: the scale must be from 0 to the precision, {precision}")
    return ColumnType("decimal", precision, scale)
