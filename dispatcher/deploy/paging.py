"""Cuts what is written into transactions."""

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from dispatcher.dag.size import MAX_ROWS
from dispatcher.deploy.rows import Row, SettingsRow

Item = TypeVar("Item")

PAGE_ROWS = MAX_ROWS
"""Rows that one transaction of a deploy writes at most."""
_ROW_BYTES = 1024


def pages(items: Iterable[Item], cost: Callable[[Item], int]) -> Iterator[list[Item]]:
    """The items in their order, in lists of at most PAGE_ROWS; one that alone costs more gets a list of its own."""
    page: list[Item] = []
    room = PAGE_ROWS
    for item in items:
        price = cost(item)
        if page and price > room:
            yield page
            page, room = [], PAGE_ROWS
        page.append(item)
        room -= price
    if page:
        yield page


def row_cost(row: Row) -> int:
    """One; details of a job, which repeat the columns of all that it reads, one more for each KiB."""
    return 1 + len(row.details) // _ROW_BYTES if isinstance(row, SettingsRow) else 1
