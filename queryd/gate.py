"""The gate: what a query's text may contain, decided on DuckDB's own parse tree before anything is bound or run.

SQL is hostile input, and the type of a statement is no guard: since DuckDB 2.0 `with x as (copy ... to ...) select ...`
is a SELECT that writes. So the gate is an allow-list all the way down. Each node of the tree must be of a known kind,
with known fields only; each function, table function and type must be in queryd/allowed.py; each relation is a common
table expression in scope or the name of a dataset. What it does not know, it refuses. It runs in the cell
(queryd/engine/cell.py), under the limits of the query: the parser sees hostile text too.

The gate is one of three walls. Behind it stand the engine's own locks (queryd/engine/session.py) and the process
(queryd/engine/sandbox.py).
"""

import gc
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import duckdb

from kernel.dataset_sql import TableName, folded, line_and_column
from queryd.allowed import FUNCTIONS, TABLE_FUNCTIONS, TYPES
from queryd.shapes import KNOWN, OPERATORS, PARTS, QUERY_NODES
from queryd.terms import Constant, Mentions, mentions

_MOST_NAMES = 1000  # as DatasetService.PinDatasets takes
_LONGEST_NAME = 255
_MOST_PARAMETERS = 1000
_NO_VALUES: Mapping[str, Constant] = {}

Scope = frozenset[tuple[str, ...]]
"""What names of relations mean a common table expression, by their parts, folded as the engine folds them.

It must never hold more than the engine's own scope does: a name that the engine does not find there is one of a file.
"""

# What kinds that people do write are called, for the message.
_WORDS = {
    "SHOW_REF": "DESCRIBE, SHOW and SUMMARIZE look at the engine, not at data: select from a dataset instead",
    "DEFAULT": "DEFAULT has no meaning in a query",
}


@dataclass(frozen=True, slots=True)
class Place:
    """Line and column in the text, from 1, in characters."""

    line: int
    column: int


class GateError(Exception):
    """The text may not run. `kind`: refused (not allowed), ambiguous (a bare name), failed (the parser's complaint)."""

    def __init__(self, kind: str, message: str, place: Place) -> None:
        super().__init__(message)
        self.kind, self.message, self.place = kind, message, place


@dataclass(frozen=True, slots=True)
class Checked:
    """What a text asks for: datasets, each once per way of writing it, in the text's order; values of parameters.

    `mentions` has, by a name's parts, what each mention demands of rows (queryd/terms.py).
    """

    names: list[TableName]
    parameters: list[str]
    mentions: Mentions


def check(connection: duckdb.DuckDBPyConnection, sql: str, values: Mapping[str, Constant] = _NO_VALUES) -> Checked:
    """What one SELECT asks for; `values` are those of its parameters, where they are known. Raises GateError."""
    try:
        with _no_collections():
            walk = _Walk(sql)
            tree = parsed(connection, sql)
            walk.visit(tree, frozenset(), 0)
            found = mentions(tree, values)
    except (RecursionError, MemoryError):
        raise GateError("refused", "the text is nested too deeply or too long; split it", Place(1, 1)) from None
    except (KeyError, TypeError, ValueError, AttributeError) as error:  # a tree of another shape than the one reviewed
        raise GateError("refused", "the gate does not know a construct of this text", Place(1, 1)) from error
    names = sorted(walk.names.values(), key=lambda name: (name.line, name.column))
    return Checked(names, sorted(walk.parameters), found)


@contextmanager
def _no_collections() -> Iterator[None]:
    """A tree is many objects and no cycles: looking for these while it grows took a seventh of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def parsed(connection: duckdb.DuckDBPyConnection, sql: str) -> Any:
    """The statement of a text as DuckDB's own parser has it. Raises GateError where it is not one SELECT."""
    row = connection.execute("SELECT json_serialize_sql(?::VARCHAR)", [sql]).fetchone()
    answer: dict[str, Any] = json.loads(row[0]) if row else {"error": True}
    if answer.get("error"):
        if answer.get("error_type") == "not implemented":
            raise GateError("refused", "a query is one SELECT, and this is another statement", Place(1, 1))
        place = Place(*line_and_column(sql, int(answer.get("position") or 0)))
        message = str(answer.get("error_message", "the text cannot be parsed"))
        if answer.get("error_type") == "out of memory":
            raise MemoryError
        if "expression depth limit" in message:
            raise GateError("refused", "the text is nested too deeply; split it", place)
        raise GateError("failed", message, place)
    statements = answer["statements"]
    if len(statements) != 1:
        what = "nothing" if not statements else f"{len(statements)} statements"
        raise GateError("refused", f"a query is one SELECT, and this is {what}", Place(1, 1))
    return statements[0]


@dataclass(slots=True)
class _Walk:
    """One pass over a tree."""

    sql: str
    names: dict[tuple[str, ...], TableName] = field(default_factory=dict)
    parameters: set[str] = field(default_factory=set)

    def visit(self, value: Any, scope: Scope, offset: int) -> None:
        if isinstance(value, list):
            for item in value:
                self.visit(item, scope, offset)
        elif isinstance(value, dict):
            offset = _offset(value, offset)
            kind = value.get("type")
            if isinstance(kind, str):
                self._check(value, kind, scope, offset)
            elif frozenset(value) not in PARTS and not any(frozenset(value) < part for part in PARTS):
                raise self._refused(
                    f"the gate does not know a construct with the fields {', '.join(sorted(value))}", offset
                )
            self._descend(value, kind if isinstance(kind, str) else "", scope, offset)

    def _check(self, node: dict[str, Any], kind: str, scope: Scope, offset: int) -> None:
        name = str(node.get("class", kind))
        known = KNOWN.get("SUBQUERY_TABLE" if kind == "SUBQUERY" and "class" not in node else name)
        if known is None:
            raise self._refused(_WORDS.get(name) or f"{_word(name)} is not allowed: a query only reads", offset)
        if unknown := sorted(set(node) - known):
            raise self._refused(f"the gate does not know {_word(name)} with the field {unknown[0]}", offset)
        if name in ("FUNCTION", "WINDOW"):
            self._check_call(node, offset)
        elif name == "OPERATOR" and kind not in OPERATORS:
            raise self._refused(f"the gate does not know the operator {kind}", offset)
        elif name == "TYPE" and (path := _path(node)) and (len(path) != 1 or folded(path[0]) not in TYPES):
            raise self._refused(f"the type {'.'.join(path)} is not one that a query may name", offset)
        elif name == "PARAMETER":
            self._add_parameter(str(node["identifier"]), offset)
        elif kind == "BASE_TABLE":
            self._check_relation(node, scope, offset)
        elif kind == "TABLE_FUNCTION":
            self._check_table_function(node["function"], offset)

    def _add_parameter(self, identifier: str, offset: int) -> None:
        """Numbers are counted from 1 without a gap by who sends values, so a large one would ask for as many."""
        if identifier.isdecimal() and not 1 <= int(identifier) <= _MOST_PARAMETERS:
            raise self._refused(f"parameters are numbered from 1 to {_MOST_PARAMETERS}", offset)
        self.parameters.add(identifier)

    def _check_call(self, node: dict[str, Any], offset: int) -> None:
        path = _path(node)
        if len(path) != 1 or folded(path[0]) not in FUNCTIONS or node.get("export_state"):
            raise self._refused(f"the function {'.'.join(path)} is not one that a query may call", offset)

    def _check_table_function(self, node: dict[str, Any], offset: int) -> None:
        if node["class"] != "FUNCTION" or set(node) - KNOWN["FUNCTION"]:
            raise self._refused("the gate does not know a table function of this form", offset)
        path = _path(node)
        if len(path) != 1 or folded(path[0]) not in TABLE_FUNCTIONS:
            known, what = ", ".join(sorted(TABLE_FUNCTIONS)), ".".join(path)
            raise self._refused(f"the table function {what} is not one of {known}: read a dataset by its name", offset)

    def _check_relation(self, node: dict[str, Any], scope: Scope, offset: int) -> None:
        if node.get("at_clause") is not None:
            raise self._refused("AT is not offered: give the query a state to read instead (as_of)", offset)
        parts = _path(node)
        if tuple(map(folded, parts)) in scope or parts in self.names:
            return
        place = self._place(offset)
        name = TableName(parts, place.line, place.column)
        if name.ambiguity is not None:
            raise GateError("ambiguous", f'{name.ambiguity}: write "{name.dataset_id}" in double quotes', place)
        if not name.dataset_id or len(name.dataset_id.encode()) > _LONGEST_NAME:
            raise self._refused(f"a dataset's name has 1 to {_LONGEST_NAME} bytes", offset)
        self.names[parts] = name
        if len(self.names) > _MOST_NAMES:
            raise self._refused(f"a query names at most {_MOST_NAMES} datasets", offset)

    def _descend(self, node: dict[str, Any], kind: str, scope: Scope, offset: int) -> None:
        """Visits what is below. A common table expression is seen by those after it and by the body, not by itself."""
        if kind in QUERY_NODES:
            for entry in node["cte_map"].get("map", []):
                self._check_common_table(entry, offset)
                self.visit(entry, scope, offset)
                scope |= {(folded(str(entry["key"])),)}
        for key, child in node.items():
            if kind == "RECURSIVE_CTE_NODE" and key == "right":
                # Within its own second half, `recurring.t` is the union so far of the recursive expression `t`.
                name = folded(str(node["cte_name"]))
                self.visit(child, scope | {(name,), ("recurring", name)}, offset)
            elif kind == "TABLE_FUNCTION" and key == "function":
                self.visit(list(child.values()), scope, offset)  # the call itself was held against a list of its own
            elif key != "cte_map" or kind not in QUERY_NODES:
                self.visit(child, scope, offset)

    def _check_common_table(self, entry: dict[str, Any], offset: int) -> None:
        node = entry["value"]["query_node"]
        if node["type"] not in QUERY_NODES:
            raise self._refused(f"{_word(node['type'])} is not allowed in WITH: a query only reads", offset)

    def _refused(self, message: str, offset: int) -> GateError:
        return GateError("refused", message, self._place(offset))

    def _place(self, offset: int) -> Place:
        return Place(*line_and_column(self.sql, offset))


def _offset(node: dict[str, Any], outer: int) -> int:
    """Where a node stands, in bytes; the largest uint64 stands for "nowhere", as in nodes that the parser adds."""
    offset = node.get("query_location")
    return offset if isinstance(offset, int) and 0 <= offset < 2**63 else outer


def _path(node: dict[str, Any]) -> tuple[str, ...]:
    """A name with what qualifies it."""
    return tuple(map(str, node["qualified_name"]["path"]))


def _word(kind: str) -> str:
    return kind.removesuffix("_NODE").removesuffix("_QUERY").removesuffix("_REF").replace("_", " ")
