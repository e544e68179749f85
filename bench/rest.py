"""When a stack is idle: the finished tasks of the measures before are out of the hot tables."""

from bench.stack import Stack, wait_until
from dispatcher.db.statements import Statements

_sql = Statements.load("bench")

_LIMIT_SECONDS = 600.0


def at_rest(stack: Stack) -> None:
    """Returns when no finished task is left to be moved. Raises TooSlow."""
    with stack.database() as database:

        def moved() -> bool:
            row = database.execute(_sql.kept_waiting).fetchone()
            return row is not None and not row[0]

        wait_until(moved, _LIMIT_SECONDS, "finished tasks leave the hot tables")
