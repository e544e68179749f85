"""Lists come in pages; a person wants so many, or all."""

from collections.abc import Callable
from typing import Protocol, Self, TypeVar

_PAGE = 1000


class Page(Protocol):
    """An answer of a List call."""

    next_page_token: str

    def MergeFrom(self, other: Self, /) -> None: ...


Answer = TypeVar("Answer", bound=Page)


def collect(fetch: Callable[[int, str], Answer], size: Callable[[Answer], int], limit: int) -> Answer:
    """The first `limit` items (0 for all) as one answer. Its `next_page_token` says whether there are more.

    `fetch` takes page size and token, `size` counts the items of an answer.
    """
    merged = fetch(min(limit or _PAGE, _PAGE), "")
    while merged.next_page_token and (limit == 0 or size(merged) < limit):
        page = fetch(min(limit - size(merged), _PAGE) if limit else _PAGE, merged.next_page_token)
        merged.MergeFrom(page)
        merged.next_page_token = page.next_page_token
    return merged
