"""What time alone makes due, in one statement: so the duties of a dispatcher without work ask nothing themselves.

What this dispatcher commits calls them at once; here is found what its replicas caused and what just passed.
"""

from dataclasses import dataclass
from datetime import timedelta

from dispatcher.db.rows import Connection, rows
from dispatcher.db.statements import Statements

_sql = Statements.load("dispatcher.wakeups", "lookout.sql")


@dataclass(frozen=True, slots=True)
class Due:
    """Seconds until there is something to do, not above zero where there is now; None where nothing is under way."""

    leases: float | None
    backoffs: float | None
    wakeups: float | None
    replay: bool
    queued: bool
    staged: bool


async def find_due(connection: Connection, unanswered: timedelta) -> Due:
    """`unanswered` is how old a wake-up is that is sent again."""
    (found,) = await rows(connection, _sql.due, Due, unanswered=unanswered)
    return found
