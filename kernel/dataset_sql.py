"""SQL over datasets: which ones a text names, whether it is one SELECT, and relations under which it runs as written.

A dataset is written `"eth.blocks"`. The bare `eth.blocks` reads, to DuckDB, as the table `blocks` of the schema `eth`;
`relation_ddl` makes a view under both names, so no text is ever rewritten: rewriting SQL is how its meaning gets lost.
What DuckDB would read in more than one way is refused with the reason (`TableName.ambiguity`).

This module parses and never binds or executes. It is no security gate: a caller that runs hostile text needs its own.
"""

import json
import os
import string
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import duckdb

# Query nodes that only read. Since DuckDB 2.0 a WITH clause may hold COPY and INSERT, in what is typed SELECT.
_READING_NODES = frozenset({"SELECT_NODE", "SET_OPERATION_NODE", "RECURSIVE_CTE_NODE", "CTE_NODE"})
# Table functions that read nothing but their arguments. Others reach files, settings, or tables named by data.
_TABLE_FUNCTIONS = frozenset({"range", "generate_series", "unnest"})
# DuckDB's own catalogs and schemas: bare `main.x` would be the dataset `x` as well as the dataset `main.x`.
_RESERVED_QUALIFIERS = frozenset({"main", "temp", "system", "memory", "information_schema", "pg_catalog"})
_PARSER_SETTINGS: dict[str, str | bool | int | float | list[str]] = {
    "enable_external_access": "false",
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "threads": "1",
    "memory_limit": "512MB",
}
_PAGE_LETTERS = 65_536
_ASCII_LOWER = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)


@dataclass(frozen=True, slots=True)
class SqlProblem:
    """What is wrong with a text, and where: line and column count from 1, in characters."""

    message: str
    remedy: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"line {self.line}, column {self.column}: {self.message}; {self.remedy}"


class SqlError(ValueError):
    """The text is not one SELECT."""

    def __init__(self, problem: SqlProblem) -> None:
        super().__init__(str(problem))
        self.problem = problem


@dataclass(frozen=True, slots=True)
class TableName:
    """A relation that a text reads and does not define itself, at its first mention."""

    parts: tuple[str, ...]  # ("eth.blocks",) for the quoted form, ("eth", "blocks") for the bare one
    line: int
    column: int

    @property
    def dataset_id(self) -> str:
        return ".".join(self.parts)

    @property
    def ambiguity(self) -> str | None:
        """Why the bare form may not be used here, or None."""
        if len(self.parts) == 1:
            return None
        if len(self.parts) > 2:
            return f"SQL reads {_bare(self.parts)} as catalog, schema and table"
        if any("." in part for part in self.parts):
            return f"{_bare(self.parts)} can be split into schema and table in more than one way"
        if self.parts[0].lower() in _RESERVED_QUALIFIERS:
            return f"`{self.parts[0]}` is a schema of the engine itself, so {_bare(self.parts)} can mean two datasets"
        return None


def table_names(sql: str) -> list[TableName]:
    """The relations that `sql` reads, each once per way of writing it, by their place in the text. Raises SqlError."""
    return table_names_of(parse_select(sql), sql)


def table_names_of(tree: dict[str, Any], sql: str) -> list[TableName]:
    """The same of a text that has been parsed: `tree` is what `parse_select` answered."""
    try:
        mentions = sorted(_base_tables(tree, frozenset()), key=lambda item: item[1])
    except RecursionError:
        raise SqlError(_too_deep()) from None
    found: dict[tuple[str, ...], TableName] = {}
    for parts, offset in mentions:
        if parts not in found:
            line, column = line_and_column(sql, offset)
            found[parts] = TableName(parts, line, column)
    return list(found.values())


def single_select_problem(sql: str) -> SqlProblem | None:
    """Why `sql` is not one SELECT that only reads relations, or None where it is one."""
    try:
        parse_select(sql)
    except SqlError as error:
        return error.problem
    return None


def parse_select(sql: str) -> dict[str, Any]:
    """DuckDB's own parse tree of one SELECT, as `json_serialize_sql` writes it. Raises SqlError for anything else."""
    return _tree(sql, _serialized([sql])[0])


def parse_selects(sqls: Sequence[str]) -> Iterator[dict[str, Any] | SqlError]:
    """The same of many, in their order, with the engine asked once for a page of them: most of a question's time is
    not the parsing."""
    page: list[str] = []
    letters = 0
    for sql in sqls:
        page.append(sql)
        letters += len(sql)
        if letters >= _PAGE_LETTERS:
            yield from _parsed(page)
            page, letters = [], 0
    yield from _parsed(page)


def _parsed(sqls: Sequence[str]) -> Iterator[dict[str, Any] | SqlError]:
    serialized: Sequence[str | None] = []
    try:
        serialized = _serialized(sqls) if sqls else []
    except SqlError:  # of one of them; which, shows when each is asked for by itself
        serialized = [None] * len(sqls)
    for sql, text in zip(sqls, serialized, strict=True):
        try:
            yield parse_select(sql) if text is None else _tree(sql, text)
        except SqlError as error:
            yield error


def _tree(sql: str, serialized: str) -> dict[str, Any]:
    try:
        answer: dict[str, Any] = json.loads(serialized)
    except RecursionError:
        raise SqlError(_too_deep()) from None
    if answer.get("error"):
        raise SqlError(_parse_problem(sql, answer))
    statements = answer["statements"]
    if len(statements) != 1:
        what = "nothing" if not statements else f"{len(statements)} statements"
        raise SqlError(SqlProblem(f"one SELECT is wanted, and this is {what}", "write one SELECT", 1, 1))
    tree: dict[str, Any] = statements[0]["node"]
    fault = next(_faults(tree), None)
    if fault is not None:
        message, remedy, offset = fault
        raise SqlError(SqlProblem(message, remedy, *line_and_column(sql, offset)))
    return tree


def relation_ddl(dataset_id: str, select_sql: str) -> list[str]:
    """Statements, in order, that make a dataset readable under its quoted name and, where unambiguous, its bare one.

    `select_sql` is trusted to be one SELECT. The statements of several datasets run one after another in one database.
    """
    name = quoted(dataset_id)
    statements = [f"CREATE VIEW main.{name} AS {select_sql}"]
    parts = tuple(dataset_id.split("."))
    if len(parts) == 2 and all(parts) and TableName(parts, 1, 1).ambiguity is None:
        schema, table = quoted(parts[0]), quoted(parts[1])
        statements.append(f"CREATE SCHEMA IF NOT EXISTS {schema}")
        statements.append(f"CREATE VIEW {schema}.{table} AS SELECT * FROM main.{name}")  # noqa: S608 -- both quoted
    return statements


def scope_columns(cursor_type: str) -> dict[str, str]:
    """Columns, with their types in a document's words, of the relation of a dataset that keeps events only.

    `cursor_type` is `int64`, `timestamp` or `string`; empty for partition keys. One row for each visible scope.
    """
    if not cursor_type:
        return {"partition_key": "string", "revision": "uint64"}
    return {"first": cursor_type, "last": cursor_type, "unit_count": "uint64", "revision": "uint64"}


def folded(identifier: str) -> str:
    """The identifier as DuckDB compares them: of letters, those of ASCII alone lose their case.

    Python's `lower` would take more for equal: the Kelvin sign and `k`, `Ä` and `ä`.
    """
    return identifier.lower() if identifier.isascii() else identifier.translate(_ASCII_LOWER)


def without_end(sql: str) -> str:
    """One statement without the semicolons after it, so that it can stand in parentheses. They need a line of their own
    where it ends in a comment."""
    text = sql.encode()
    for offset, kind in reversed(duckdb.tokenize(sql)):  # offsets are in bytes
        if kind is not duckdb.token_type.comment:
            if text[offset : offset + 1] != b";":
                break
            text = text[:offset]
    return text.decode()


def quoted(identifier: str) -> str:
    """The identifier as SQL writes it whatever its characters."""
    return '"' + identifier.replace('"', '""') + '"'


def line_and_column(sql: str, byte_offset: int) -> tuple[int, int]:
    """Line and column, from 1 and in characters, of an offset into the text's UTF-8 bytes, as DuckDB gives them."""
    before = sql.encode()[: max(byte_offset, 0)].decode(errors="ignore")
    return before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1


@cache  # never dropped: ending an engine that another process made waits for that process' threads
def _parser(process_id: int) -> duckdb.DuckDBPyConnection:
    """The engine used for parsing, made at its first use (50 ms), and again in a forked process."""
    del process_id
    return duckdb.connect(":memory:", config=_PARSER_SETTINGS)


def _serialized(sqls: Sequence[str]) -> list[str]:
    """Raises SqlError where the engine cannot even read one of them."""
    try:
        with _parser(os.getpid()).cursor() as cursor:
            cursor.execute("SELECT json_serialize_sql(text) FROM (SELECT unnest(?::VARCHAR[]) AS text)", [list(sqls)])
            return [row[0] for row in cursor.fetchall()]
    except (duckdb.Error, UnicodeEncodeError) as error:
        raise SqlError(SqlProblem(f"the text cannot be read: {error}", "write one SELECT", 1, 1)) from error


def _parse_problem(sql: str, answer: dict[str, Any]) -> SqlProblem:
    message = str(answer.get("error_message", "the text cannot be parsed"))
    if answer.get("error_type") == "not implemented":
        return SqlProblem("this is not a SELECT", "write one SELECT", 1, 1)
    if "expression depth limit" in message:
        return _too_deep()
    line, column = line_and_column(sql, int(answer.get("position") or 0))
    return SqlProblem(message, "correct the SQL", line, column)


def _too_deep() -> SqlProblem:
    return SqlProblem("its expressions are nested too deeply", "flatten the expression", 1, 1)


def _faults(tree: Any) -> Iterator[tuple[str, str, int]]:
    """What in a parse tree does more than read relations: message, remedy, byte offset."""
    for node in _nodes(tree):
        kind, offset = node.get("type"), _offset(node)
        if "cte_map" in node and kind not in _READING_NODES:
            word = str(kind).removesuffix("_NODE").removesuffix("_QUERY").lower()
            yield f"a SELECT may only read, and this one holds {word}", "take it out", offset
        elif kind == "SHOW_REF":
            yield "DESCRIBE, SHOW and SUMMARIZE look at the engine, not at data", "write a SELECT over datasets", offset
        elif kind == "TABLE_FUNCTION":
            function = node.get("function") or {}
            name = str(function.get("function_name", ""))
            if name.lower() not in _TABLE_FUNCTIONS:
                yield (
                    f"the table function {name} reads something else than datasets",
                    "read a dataset by its name",
                    offset,
                )
            elif name.lower() != "unnest" and not _plain_arguments(function.get("arguments")):
                # The engine evaluates these arguments while it binds, before any limit of a query applies.
                yield f"the arguments of {name} are computed", f"give {name} plain values", offset


def _plain_arguments(arguments: Any) -> bool:
    return all(part["function_name"] in ("+", "-") for part in _nodes(arguments) if "function_name" in part)


def _nodes(tree: Any) -> Iterator[dict[str, Any]]:
    pending = [tree]
    while pending:
        value = pending.pop()
        if isinstance(value, dict):
            yield value
            pending.extend(reversed(list(value.values())))
        elif isinstance(value, list):
            pending.extend(reversed(value))


def _base_tables(value: Any, defined: frozenset[tuple[str, ...]]) -> Iterator[tuple[tuple[str, ...], int]]:
    """Names and byte offsets of the relations below `value` that no WITH clause around them defines.

    A common table expression is visible in those after it and in the body, but not in itself:
    `with t as (from t) from t` reads a relation `t`.
    """
    if isinstance(value, list):
        for item in value:
            yield from _base_tables(item, defined)
        return
    if not isinstance(value, dict):
        return
    if value.get("type") == "BASE_TABLE":
        parts = tuple(value["qualified_name"]["path"])
        if tuple(map(folded, parts)) not in defined:
            yield parts, _offset(value)
        return
    if "cte_map" in value:
        for entry in value["cte_map"]["map"]:
            yield from _base_tables(entry["value"], defined)
            defined |= {(folded(str(entry["key"])),)}
    for key, child in value.items():
        if key == "cte_map":
            continue
        if value.get("type") == "RECURSIVE_CTE_NODE" and key != "left":
            # Within its own second half, `recurring.t` is the union so far of the recursive expression `t`.
            name = folded(str(value["cte_name"]))
            yield from _base_tables(child, defined | {(name,), ("recurring", name)})
        else:
            yield from _base_tables(child, defined)


def _offset(node: dict[str, Any]) -> int:
    offset = int(node.get("query_location") or 0)
    return 0 if offset >= 2**63 else offset  # the largest uint64 stands for "nowhere"


def _bare(parts: tuple[str, ...]) -> str:
    return "`" + ".".join(parts) + "`"
