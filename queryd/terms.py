"""What a text demands of the rows that it reads: for each mention of a relation, comparisons of columns with constants.

Read from the parse tree that the gate has passed. A term is told only where leaving out rows that do not meet it cannot
change the answer: it stands in the WHERE of the SELECT whose FROM mentions the relation, joined to the rest by AND, and
the joins are such that WHERE decides after them which rows count. What is demanded of the rows that a query answers is
demanded of those that it reads, where its columns are theirs (queryd/outputs.py, queryd/set_operations.py). What is not
understood is left out, so terms may be missing, and there is never one too many. They serve to leave out whole files
(queryd/cursor_bounds.py); the engine decides on rows.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from kernel.dataset_sql import folded
from queryd.outputs import Node, origin
from queryd.set_operations import Relations, branch_columns

# By `type` of a comparison: as it stands, and with its sides exchanged.
_COMPARISONS = {
    "COMPARE_EQUAL": ("in", "in"),
    "COMPARE_GREATERTHAN": (">=", "<="),
    "COMPARE_GREATERTHANOREQUALTO": (">=", "<="),
    "COMPARE_LESSTHAN": ("<=", ">="),
    "COMPARE_LESSTHANOREQUALTO": ("<=", ">="),
}
# Of other joins (ASOF, POSITIONAL) a row's fate depends on which other rows there are.
_PLAIN_JOINS = frozenset({"REGULAR", "CROSS", "NATURAL"})
# Of these WHERE does not see what is joined: a name there is another relation's, of a SELECT around.
_LEFT_ONLY = frozenset({"SEMI", "ANTI"})


@dataclass(frozen=True, slots=True)
class Constant:
    """`kind` is INTEGER, NUMERIC or STRING; `cast` the type to which the text casts it, in lower case, or empty."""

    kind: str
    text: str
    cast: str = ""


@dataclass(frozen=True, slots=True)
class Term:
    """A row counts only where its `column` (folded) is `>=` or `<=` the one value, `between` two, or `in` the values.

    What stands in one comparison is of one term, for the engine finds one type for all of it.
    """

    column: str
    operator: str
    values: tuple[Constant, ...]


Terms = tuple[Term, ...]
Mentions = dict[tuple[str, ...], list[Terms]]
"""By a relation's name as it is written: the terms of each mention of it."""


NOTHING_KNOWN: Relations = {}


def mentions(
    statement: Node, parameters: Mapping[str, Constant], demanded: Terms = (), relations: Relations = NOTHING_KNOWN
) -> Mentions:
    """Of a parsed statement; `parameters` are the values that are known, `demanded` terms of the rows that it answers:
    others do not count. `relations` has the columns of those that are known."""
    found: Mentions = {}
    for table, terms in _Reader(parameters, relations).read(statement, {id(statement["node"]): demanded}):
        found.setdefault(tuple(map(str, table["qualified_name"]["path"])), []).append(terms)
    return found


@dataclass(frozen=True, slots=True)
class _Reader:
    parameters: Mapping[str, Constant]
    relations: Relations

    def read(self, value: Any, known: Mapping[int, Terms]) -> Iterator[tuple[Node, Terms]]:
        """Every relation below, with its terms. `known` has those of relations of the SELECT around, and of queries, by
        identity."""
        if isinstance(value, list):
            for item in value:
                yield from self.read(item, known)
        elif isinstance(value, dict):
            kind = value.get("type")
            if kind == "BASE_TABLE":
                yield value, known.get(id(value), ())
            elif kind == "SELECT_NODE":
                known = self._of_select(value, known.get(id(value), ()))
            elif kind == "SET_OPERATION_NODE":
                known = self._of_set_operation(value, known.get(id(value), ()))
            elif kind == "SUBQUERY" and "class" not in value:
                known = {id(value["subquery"]["node"]): known.get(id(value), ())}
            for child in value.values():
                yield from self.read(child, known)

    def _of_select(self, select: Node, demanded: Terms) -> dict[int, Terms]:
        tables = list(_tables(select["from_table"]))
        if select.get("sample") is not None:
            return {}
        alone = len(tables) == 1 and select["from_table"] is tables[0]
        terms = [found for part in _conjuncts(select.get("where_clause")) for found in self._terms(part)]
        terms += [
            (column[0], replace(term, column=column[1]))
            for term in demanded
            if (column := origin(select, term.column)) is not None
        ]
        return {
            id(table): tuple(term for qualifier, term in terms if _is_of(qualifier, table, alone=alone))
            for table in tables
            if table.get("sample") is None and not table.get("column_name_alias")
        }

    def _of_set_operation(self, node: Node, demanded: Terms) -> dict[int, Terms]:
        found: dict[int, Terms] = {}
        for term in demanded:
            for branch, column in branch_columns(node, term.column, self.relations):
                found[id(branch)] = (*found.get(id(branch), ()), replace(term, column=column))
        return found

    def _terms(self, node: Node) -> Iterator[tuple[str | None, Term]]:
        """With the table by which the column is qualified, or None."""
        kind = node.get("type")
        if kind in _COMPARISONS:
            straight, exchanged = _COMPARISONS[kind]
            for column, value, operator in (
                (node["left"], node["right"], straight),
                (node["right"], node["left"], exchanged),
            ):
                yield from self._term(column, operator, [value])
        elif kind == "COMPARE_BETWEEN":
            yield from self._term(node["input"], "between", [node["lower"], node["upper"]])
        elif kind == "COMPARE_IN":
            column, *values = node["children"]
            yield from self._term(column, "in", values)

    def _term(self, column: Node, operator: str, values: list[Node]) -> Iterator[tuple[str | None, Term]]:
        names = [str(name) for name in column.get("column_names", ())] if column.get("class") == "COLUMN_REF" else []
        constants = [self._constant(value) for value in values]
        known = tuple(constant for constant in constants if constant is not None)
        if len(names) in (1, 2) and len(known) == len(constants):
            yield folded(names[0]) if len(names) == 2 else None, Term(folded(names[-1]), operator, known)

    def _constant(self, node: Node) -> Constant | None:
        if node.get("class") == "CONSTANT":
            return Constant(str(node["literal"]["kind"]), str(node["literal"]["text"]))
        if node.get("class") == "PARAMETER":
            return self.parameters.get(str(node["identifier"]))
        if node.get("class") == "CAST" and node["child"].get("class") == "CONSTANT":
            if node["type_expr"]["children"]:
                return None  # a cast to fewer digits rounds
            literal = node["child"]["literal"]
            return Constant(str(literal["kind"]), str(literal["text"]), str(node["type_expr"]["type_name"]).lower())
        return None


def _tables(node: Node) -> Iterator[Node]:
    """The relations of a FROM whose rows WHERE decides on."""
    if node.get("type") in ("BASE_TABLE", "SUBQUERY"):
        yield node
    elif node.get("type") == "JOIN" and node["ref_type"] in _PLAIN_JOINS:
        yield from _tables(node["left"])
        if node["join_type"] not in _LEFT_ONLY:
            yield from _tables(node["right"])


def _conjuncts(node: Node | None) -> Iterator[Node]:
    if node is None:
        return
    if node.get("type") == "CONJUNCTION_AND":
        for child in node["children"]:
            yield from _conjuncts(child)
    else:
        yield node


def _is_of(qualifier: str | None, table: Node, *, alone: bool) -> bool:
    if qualifier is None:
        return alone
    path = table["qualified_name"]["path"] if table["type"] == "BASE_TABLE" else [""]
    return folded(str(table.get("alias") or path[-1])) == qualifier
