"""The format of the `.sql` files beside the slices."""

from importlib.resources import files
from pathlib import Path

import pytest

from dispatcher.db.errors import StatementError
from dispatcher.db.statements import Statements

_FILE = """\
-- What this slice asks. 100 % comment.

-- name: claim_tasks
-- Locks in id order; relies on task_pkey. Not a %(parameter)s.
select task_id
from task  -- trailing comments stay
where task_id = any(%(task_ids)s);

-- name: count_tasks
select count(*) from task
"""


def test_statements_are_found_by_name() -> None:
    statements = Statements(_FILE, "tasks/queries.sql")
    assert list(statements) == ["claim_tasks", "count_tasks"]
    assert statements.count_tasks == statements["count_tasks"] == "-- name: count_tasks\nselect count(*) from task"
    assert "claim_tasks" in statements


def test_comment_lines_and_the_last_semicolon_are_dropped() -> None:
    assert Statements(_FILE, "tasks/queries.sql").claim_tasks == (
        "-- name: claim_tasks\nselect task_id\nfrom task  -- trailing comments stay\nwhere task_id = any(%(task_ids)s)"
    )


def test_a_missing_name_says_file_and_nearest() -> None:
    with pytest.raises(StatementError, match=r"tasks/queries\.sql: .* claim_task; did you mean claim_tasks\?"):
        _ = Statements(_FILE, "tasks/queries.sql").claim_task


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("-- name: a\nselect 1\n-- name: a\nselect 2", r"x\.sql:3: a is already the name of line 1"),
        ("select 1", r"x\.sql:1: SQL before the first"),
        ("-- name: a\n\n-- name: b\nselect 1", r"x\.sql:1: a has no SQL"),
        ("-- name: Two words\nselect 1", r"x\.sql:1: 'Two words' is no name"),
        ("-- name:\nselect 1", r"x\.sql:1: '' is no name"),
    ],
)
def test_faults_are_named_with_file_and_line(text: str, error: str) -> None:
    with pytest.raises(StatementError, match=error):
        Statements(text, "x.sql")


def test_files_are_read_from_their_package() -> None:
    assert "lock_migrations" in Statements.load("dispatcher.db")
    with pytest.raises(StatementError, match=r"dispatcher/db/nothing\.sql: there is no such file"):
        Statements.load("dispatcher.db", "nothing.sql")


def test_no_line_of_them_is_longer_than_160_characters() -> None:
    """But in what is dumped."""
    found = [path for path in Path(str(files("dispatcher"))).rglob("*.sql") if path.name != "schema.sql"]
    assert len(found) > 20
    long = [
        f"{path.name}:{number}"
        for path in found
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if len(line) > 160
    ]
    assert not long
