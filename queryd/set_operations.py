"""Which columns of the branches of a UNION, INTERSECT or EXCEPT are those of its answer, unchanged.

A row of the answer is a row of a branch, or one that equals it in all columns. So where a column has one type in all
branches, rows that are left out because of it may as well be left out of each branch before. Where the types differ
the answer has another type than some branch, and compares otherwise. Types are known of datasets, and so of columns
that are theirs. Read from DuckDB's parse tree.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kernel.dataset_sql import folded
from queryd.outputs import Column, Node, called, of_whole_rows

_BY_POSITION = frozenset({"UNION", "INTERSECT", "EXCEPT"})
_BY_NAME = "UNION_BY_NAME"
_ONE_RELATION = frozenset({"BASE_TABLE", "SUBQUERY"})
_STARS_CHANGES = (
    *("exclude_list", "qualified_exclude_list", "replace_list", "rename_list"),
    *("columns", "expr", "relation_name"),
)
_UNKNOWN = ""

Answer = list[tuple[str, str]]
"""Name and type of each column, in their order."""


@dataclass(frozen=True, slots=True)
class Columns:
    """Of a dataset: types, in the contract's words, by folded names; `order` has these names, and is empty where it is
    not known."""

    types: Mapping[str, str]
    order: tuple[str, ...] = ()


Relations = Mapping[str, Columns]
"""By the folded name of a relation that is known."""


def branch_columns(node: Node, name: str, relations: Relations) -> list[tuple[Node, str]]:
    """Branches of a set operation, and what each calls the column that the answer calls `name`. None of them where it
    may be another column in one, or of another type."""
    if not all(map(of_whole_rows, node.get("modifiers") or ())):
        return []
    branches = _branches(node)
    by_name = node["setop_type"] == _BY_NAME
    answers = _answers(branches, relations, ordered=not by_name)
    if answers is None:
        return []
    if by_name:  # a branch that lacks it has nulls there, which meet nothing
        found = [(branch, _named(answer, name)) for branch, answer in zip(branches, answers, strict=True)]
        found = [(branch, columns) for branch, columns in found if columns]
    elif (position := _position(node, answers, name)) is not None:
        found = [
            (branch, _named(answer, answer[position][0])) for branch, answer in zip(branches, answers, strict=True)
        ]
    else:
        return []
    types = {type_ for _, columns in found for _, type_ in columns}
    if any(len(columns) != 1 for _, columns in found) or len(types) != 1 or _UNKNOWN in types:
        return []
    return [(branch, columns[0][0]) for branch, columns in found]


def answered_columns(node: Node, relations: Relations) -> Columns | None:
    """Those of a query's answer, where they are plain to see and each has a name of its own."""
    answer = _answer(node, relations, ordered=True)
    if answer is None or len({name for name, _ in answer}) < len(answer):
        return None
    return Columns(dict(answer), tuple(name for name, _ in answer))


def _branches(node: Node) -> Sequence[Node]:
    return node.get("children") or [node["left"], node["right"]]


def _named(answer: Answer, name: str) -> Answer:
    return [column for column in answer if column[0] == name]


def _position(node: Node, answers: Sequence[Answer], name: str) -> int | None:
    """Of a column in all branches; they are called as in the first one."""
    if node["setop_type"] not in _BY_POSITION or len({len(answer) for answer in answers}) != 1:
        return None
    found = [position for position, (own, _) in enumerate(answers[0]) if own == name]
    return found[0] if len(found) == 1 else None


def _answers(nodes: Sequence[Node], relations: Relations, *, ordered: bool) -> list[Answer] | None:
    """Of all of them, or of none."""
    found = [answer for node in nodes if (answer := _answer(node, relations, ordered=ordered)) is not None]
    return found if len(found) == len(nodes) else None


def _answer(node: Node, relations: Relations, *, ordered: bool) -> Answer | None:
    """Of a query, where it is plain to see; in any order where not `ordered`."""
    if node["type"] == "SELECT_NODE":
        return _of_select(node, relations, ordered=ordered)
    if node["type"] != "SET_OPERATION_NODE" or node["setop_type"] not in _BY_POSITION:
        return None
    answers = _answers(_branches(node), relations, ordered=True)
    if answers is None or len({len(answer) for answer in answers}) != 1:
        return None
    return [
        (same[0][0], same[0][1] if len({type_ for _, type_ in same}) == 1 else _UNKNOWN)
        for same in zip(*answers, strict=True)
    ]


def _of_select(select: Node, relations: Relations, *, ordered: bool) -> Answer | None:
    tables = dict(_tables(select["from_table"], relations))
    found: Answer = []
    for item in select["select_list"]:
        name, column = called(item)
        if item.get("class") == "STAR":
            only = next(iter(tables.values())) if select["from_table"]["type"] in _ONE_RELATION else None
            names = () if only is None else only.order if ordered else only.types
            if only is None or not names or not _is_bare(item):
                return None
            found += [(name, only.types[name]) for name in names]
        elif name is None:
            return None
        else:
            found.append((name, _UNKNOWN if column is None else _type(column, tables)))
    return found


def _is_bare(star: Node) -> bool:
    return not any(star.get(change) for change in _STARS_CHANGES)


def _type(column: Column, tables: Mapping[str, Columns | None]) -> str:
    qualifier, name = column
    if qualifier is None:
        table = next(iter(tables.values())) if len(tables) == 1 else None
    else:
        table = tables.get(qualifier)
    return _UNKNOWN if table is None else table.types.get(name, _UNKNOWN)


def _tables(node: Node, relations: Relations) -> list[tuple[str, Columns | None]]:
    """The relations of a FROM by the names that they have there, and what is known of each. One that is not understood
    has no name."""
    kind = node["type"]
    if kind == "JOIN":
        return [*_tables(node["left"], relations), *_tables(node["right"], relations)]
    if node.get("column_name_alias") or kind not in ("BASE_TABLE", "SUBQUERY"):
        return [(f"\0{id(node)}", None)]
    if kind == "SUBQUERY":
        name = folded(str(node.get("alias") or f"\0{id(node)}"))
        return [(name, answered_columns(node["subquery"]["node"], relations))]
    path = tuple(map(str, node["qualified_name"]["path"]))
    return [(folded(str(node.get("alias") or path[-1])), relations.get(folded(".".join(path))))]
