"""The page of SQL names everything that the gate lets through, and nothing else."""

import re

from queryd.allowed import FUNCTIONS, TABLE_FUNCTIONS, TYPES
from queryd.shapes import KNOWN, OPERATORS
from tools import sql_page


def test_every_kind_of_node_has_its_words() -> None:
    assert sql_page.CLAUSES.keys() | sql_page.EXPRESSIONS.keys() == KNOWN.keys()
    assert not sql_page.CLAUSES.keys() & sql_page.EXPRESSIONS.keys()


def test_the_page_lists_what_is_allowed_and_nothing_else() -> None:
    page = sql_page.page()
    assert _listed(page, "Table functions") == TABLE_FUNCTIONS
    assert _listed(page, "Functions") == FUNCTIONS
    assert _listed(page, "Types") == TYPES
    (line,) = [line for line in page.splitlines() if line.startswith("Of operators these: ")]
    assert set(re.findall(r"`([^`]+)`", line)) == OPERATORS


def _listed(page: str, title: str) -> set[str]:
    """The words in backquotes of a section, its parts included."""
    section = page.split(f"\n## {title}\n")[1].split("\n## ")[0]
    return set(re.findall(r"`([^`]+)`", section))
