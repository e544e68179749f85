"""How many statements reach Postgres: counted in its own log, where none can hide, BEGIN and COMMIT among them."""

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from bench.stack import Stack

_STATEMENT = re.compile(rb"^[^\[]*\[\d+\] trace-dispatcher LOG:  duration: [0-9.]+ ms  (?:statement|execute)\b", re.M)
_RELOAD_SECONDS = 1.0


@dataclass(slots=True)
class Counted:
    """What dispatchers sent while the block ran."""

    statements: int = 0


@contextmanager
def counted_statements(stack: Stack) -> Iterator[Counted]:
    """Has the server log each statement while the block runs; the figure is there when the block has ended."""
    counted = Counted()
    with stack.database() as database:
        database.execute("alter system set log_min_duration_statement = 0")
        try:
            database.execute("select pg_reload_conf()")
            time.sleep(_RELOAD_SECONDS)
            start = stack.postgres_log.stat().st_size
            yield counted
            with stack.postgres_log.open("rb") as log:
                log.seek(start)
                counted.statements = len(_STATEMENT.findall(log.read()))
        finally:
            database.execute("alter system reset log_min_duration_statement")
            database.execute("select pg_reload_conf()")
