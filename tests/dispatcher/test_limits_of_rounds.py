"""A round of a duty takes no more than it was told to, also where more is due.

Postgres may begin a subquery anew for each row that is compared with it, and skips what the former one has locked: so
`id in (select .. limit 1 .. skip locked)` may take all that there is. In a `with` it is done once.
"""

import re

import pytest

from dispatcher.db.statements import Statements
from tests.dispatcher.builders import Source
from tests.dispatcher.in_process import InProcess

_SLICES = ("datasets", "deploy", "events", "tasks", "wakeups")
_BEGUN_ANEW = re.compile(r"\bin\s*\(\s*select\b.*\blimit\b.*\bskip locked", re.DOTALL)


async def test_no_more_wakeups_are_sent_again_than_there_is_room_for(dispatcher: InProcess, source: Source) -> None:
    await source.publish([1, 2])
    assert len(await dispatcher.release()) == 3
    await dispatcher.leave_unanswered()
    assert len(await dispatcher.release(room=1)) == 1


@pytest.mark.parametrize("name", _SLICES)
def test_no_limit_can_be_begun_anew(name: str) -> None:
    statements = Statements.load(f"dispatcher.{name}")
    assert [one for one in statements if _BEGUN_ANEW.search(statements[one])] == []
