"""The page of errors says everything that the table does, and nothing twice."""

import re
from pathlib import Path

from kernel.errors import error_table
from tools import errors_page


def test_every_reason_has_its_entry_with_code_meaning_and_remedy() -> None:
    page = errors_page.page(error_table())
    for row in error_table():
        entry = f"### {row.name}\n\n`{row.code.name}`. {row.meaning}\n\nWhat to do: {row.remedy}\n"
        assert page.count(entry) == 1


def test_every_link_of_the_page_leads_to_an_entry() -> None:
    page = errors_page.page(error_table())
    links = re.findall(r"\]\(#([a-z_]+)\)", page)
    headings = [heading.lower() for heading in re.findall(r"^### ([A-Z_]+)$", page, re.MULTILINE)]
    assert len(headings) == len(error_table())
    assert sorted(links) == sorted(headings)


def test_the_page_is_written_at_its_place(tmp_path: Path) -> None:
    errors_page.main(str(tmp_path))
    written = (tmp_path / "docs" / "reference" / "errors.md").read_text(encoding="utf-8")
    assert written == errors_page.page(error_table())
