"""Which columns of a SELECT's answer are columns of what it reads, unchanged.

A row of the answer that is left out because of such a column may as well be left out before: where the answer is made
row by row, or of whole groups that agree in the column. So there is none for a LIMIT, for DISTINCT ON, for windows and
samples. Those of a UNION are in queryd/set_operations.py. Read from DuckDB's parse tree.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from kernel.dataset_sql import folded

Node = Mapping[str, Any]
Column = tuple[str | None, str]
"""The relation by which it is qualified, or None; its name. Folded as the engine folds them."""

# Expressions that are never called by the name of a column in them, where they have no alias.
_OWN_NAMES = frozenset({"CONSTANT", "FUNCTION", "CASE", "COMPARISON", "CONJUNCTION", "BETWEEN"})


def origin(select: Node, name: str) -> Column | None:
    """The column of a relation in FROM that a column of the answer is; None where it is none, or that is not plain to
    see. `name` is folded."""
    if not _keeps_rows_apart(select):
        return None
    items = list(_items(select["select_list"]))
    if any(own is None for own, _ in items):
        return None
    named = [column for own, column in items if own == name]
    stars = [item for item in select["select_list"] if item.get("class") == "STAR"]
    if not stars:
        return named[0] if len(named) == 1 else None
    return _of_star(stars[0], name) if len(stars) == 1 and not named else None


def _items(select_list: list[Node]) -> Iterator[tuple[str | None, Column | None]]:
    """As `called`, of each that is no star."""
    return (called(item) for item in select_list if item.get("class") != "STAR")


def called(item: Node) -> tuple[str | None, Column | None]:
    """What the answer calls an item of a SELECT, None where that is not plain to see, as where it may be several; and
    the column that it is, or None."""
    kind = item.get("class")
    if _may_be_several(item):
        return None, None
    parts = [folded(str(part)) for part in item["column_names"]] if kind == "COLUMN_REF" else []
    column = (parts[0] if len(parts) == 2 else None, parts[-1]) if len(parts) in (1, 2) else None
    if item.get("alias"):
        return folded(str(item["alias"])), column
    if column is not None:
        return column[1], column
    return "" if kind in _OWN_NAMES else None, None


def _may_be_several(value: Any) -> bool:
    """An expression over `COLUMNS(...)` is one for each of them, and a struct in `unnest` becomes its fields."""
    if isinstance(value, list):
        return any(map(_may_be_several, value))
    if not isinstance(value, Mapping) or value.get("class") == "SUBQUERY":
        return False
    kind = value.get("class")
    if kind == "STAR" or (kind == "FUNCTION" and folded(str(value["qualified_name"]["path"][-1])) == "unnest"):
        return True
    return any(map(_may_be_several, value.values()))


def _of_star(star: Node, name: str) -> Column | None:
    left_out = [*(star.get("exclude_list") or ()), *(star.get("qualified_exclude_list") or ())]
    changes = (star.get(key) for key in ("replace_list", "rename_list", "columns", "expr"))
    if any(changes) or any(not isinstance(item, str) or folded(item) == name for item in left_out):
        return None
    return folded(str(star.get("relation_name") or "")) or None, name


def _keeps_rows_apart(select: Node) -> bool:
    return (
        select.get("sample") is None
        and select.get("qualify") is None
        and len(select.get("group_sets") or ()) <= 1
        and all(of_whole_rows(modifier) for modifier in select.get("modifiers") or ())
        and not _has_window(select["select_list"])
    )


def of_whole_rows(modifier: Node) -> bool:
    """Whether it leaves every row in the answer, or one of those that are equal."""
    kind = modifier["type"]
    return kind == "ORDER_MODIFIER" or (kind == "DISTINCT_MODIFIER" and not modifier.get("distinct_on_targets"))


def _has_window(value: Any) -> bool:
    if isinstance(value, list):
        return any(map(_has_window, value))
    return isinstance(value, dict) and (value.get("class") == "WINDOW" or any(map(_has_window, value.values())))
