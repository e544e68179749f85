"""The one place of this package that asks DuckDB: columns of a SELECT by binding it, and its text's canonical form.

Nothing is executed. A text is bound in a database of its own that holds empty relations and reaches no file, network,
extension or variable of this process; `kernel.dataset_sql` has refused before what is not one reading SELECT.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import duckdb

from kernel.column_types import parse_column_type
from kernel.dataset_sql import SqlProblem, line_and_column, parse_select, quoted, relation_ddl

_SETTINGS: Mapping[str, str | bool | int | float | list[str]] = {
    "enable_external_access": "false",
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "allow_community_extensions": "false",
    "threads": "1",
    "memory_limit": "256MB",
}
_LOCK_DOWN = (
    "SET python_enable_replacements = false",  # else a name that is no relation is looked up among Python's variables
    "SET errors_as_json = true",
    "SET lock_configuration = true",
)
_DESCRIBE = "DESCRIBE "
_WORDS = {
    "BOOLEAN": "bool",
    "TINYINT": "int8",
    "SMALLINT": "int16",
    "INTEGER": "int32",
    "BIGINT": "int64",
    "UTINYINT": "uint8",
    "USMALLINT": "uint16",
    "UINTEGER": "uint32",
    "UBIGINT": "uint64",
    "HUGEINT": "decimal(38,0)",  # what a sum of integers gives; it leaves the engine as this decimal
    "FLOAT": "float",
    "DOUBLE": "double",
    "VARCHAR": "string",
    "BLOB": "binary",
    "DATE": "date",
    "TIMESTAMP WITH TIME ZONE": "timestamp",
}
_DECIMAL = re.compile(r"DECIMAL\(([0-9]+),([0-9]+)\)")
# Where a node stands in the text. Everything else in a parse tree is meaning.
_PLACES = frozenset({"query_location", "query_location_length"})


@dataclass(frozen=True, slots=True)
class BoundColumn:
    """A column that a SELECT gives. `word` is its type as documents write it; empty where they have no word for it."""

    name: str
    engine_type: str
    word: str


class Binder:
    """Binds SELECTs against empty relations; use as a context manager."""

    def __init__(self) -> None:
        self._connection = duckdb.connect(":memory:", config=dict(_SETTINGS))

    def __enter__(self) -> Self:
        for statement in _LOCK_DOWN:
            self._connection.execute(statement)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()

    def add(self, dataset_id: str, schema: Mapping[str, str]) -> None:
        """Makes an empty relation with these columns, in their order."""
        columns = ", ".join(
            f"CAST(NULL AS {parse_column_type(schema[name]).duckdb}) AS {quoted(name)}" for name in schema
        )
        for statement in relation_ddl(dataset_id, f"SELECT {columns} WHERE false"):
            self._connection.execute(statement)

    def bind(self, sql: str) -> tuple[BoundColumn, ...] | SqlProblem:
        """The columns that `sql`, one reading SELECT, gives over the relations added so far, or why it cannot run."""
        try:
            rows = self._connection.execute(_DESCRIBE + sql).fetchall()
        except (duckdb.Error, RuntimeError) as error:
            return _problem(sql, str(error))
        return tuple(BoundColumn(str(row[0]), str(row[1]), column_word(str(row[1]))) for row in rows)


def column_word(engine_type: str) -> str:
    """The word for one of DuckDB's types, or an empty text where documents have none."""
    if engine_type in _WORDS:
        return _WORDS[engine_type]
    if found := _DECIMAL.fullmatch(engine_type):
        return f"decimal({found[1]},{found[2]})"
    if engine_type.endswith("[]"):
        item = column_word(engine_type.removesuffix("[]"))
        return f"list<{item}>" if item else ""
    return ""


def canonical_sql(sql: str) -> str:
    """A text equal for SELECTs that differ in spacing, comments and the case of key words only. Raises SqlError."""
    return canonical_tree(parse_select(sql))


def canonical_tree(tree: dict[str, Any]) -> str:
    """The same of a text that has been parsed."""
    return json.dumps(_without_places(tree), sort_keys=True, separators=(",", ":"))


def _without_places(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {key: _without_places(value) for key, value in tree.items() if key not in _PLACES}
    if isinstance(tree, list):
        return [_without_places(value) for value in tree]
    return tree


def _problem(sql: str, text: str) -> SqlProblem:
    """DuckDB's error, which says its place in JSON: `Binder Error: {"exception_message": ..., "position": "23"}`."""
    try:
        details = json.loads(text[text.index("{") :])
        message = str(details["exception_message"])
    except (ValueError, KeyError, TypeError):
        return SqlProblem(text.split("\n")[0], "correct the SQL", 1, 1)
    line, column = line_and_column(sql, int(details.get("position") or 0) - len(_DESCRIBE))
    first, *rest = [part.strip() for part in message.split("\n") if part.strip()]
    hint = " ".join(rest)
    remedy = hint[:1].lower() + hint[1:] if hint else "correct the SQL"
    return SqlProblem(_shortened(first.rstrip("!.")), _shortened(remedy), line, column)


def _shortened(text: str, length: int = 400) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"
