"""The page of states has every row of the table, each arrow once."""

from dispatcher.tasks.state import TRANSITIONS, TaskState
from tools import states_page


def test_every_transition_is_an_arrow_and_a_row() -> None:
    page = states_page.page()
    for row in TRANSITIONS:
        assert page.count(f"| `{row.event}` |") == 1
        for state in TaskState:
            assert page.count(f"    {state} --> {row.after}: {row.event}\n") == (state in row.before)
