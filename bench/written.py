"""How many rows each transaction writes, while a stack works: read from Postgres's own log of writes (WAL).

Every insert, update and delete is in it, whoever makes it and whatever writes over it later. A row that is only locked
counts as none.
"""

import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

from bench.stack import Database
from dispatcher.db.statements import Statements

_sql = Statements.load("bench", "written.sql")

INTERVAL = 2.0
"""Seconds between two readings: the server throws a log away after minutes, and long readings would be in the way."""


@dataclass(frozen=True, slots=True)
class Transaction:
    """What one transaction wrote, by table."""

    tables: Counter[str]

    @property
    def rows(self) -> int:
        return self.tables.total()

    def __str__(self) -> str:
        return ", ".join(f"{rows:,} of {table}" for table, rows in self.tables.most_common())


@dataclass(slots=True)
class RowsWritten:
    """Reads until the end of the block. A failure of the reader is raised there: a part is no measure."""

    connect: Callable[[], Database]
    interval: float = INTERVAL
    _tables: dict[int, Counter[str]] = field(default_factory=dict)
    _savepoints: dict[int, int] = field(default_factory=dict)
    _stop: threading.Event = field(default_factory=threading.Event)
    _reader: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1))
    _reading: Future[None] | None = None

    def __enter__(self) -> "RowsWritten":
        database = self.connect()
        database.execute(_sql.extension)
        self._reading = self._reader.submit(self._run, database, _mark(database))
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        with self._reader:
            if self._reading is not None:
                self._reading.result()

    def _run(self, database: Database, mark: str) -> None:
        with database:
            while not self._stop.wait(self.interval):
                mark = self._read(database, mark)
            self._read(database, mark)

    def _read(self, database: Database, first: str) -> str:
        """Up to now; answers where that is."""
        last = _mark(database)
        for xid, table, rows, savepoints in database.execute(_sql.written, {"first": first, "last": last}):
            if rows:
                self._tables.setdefault(xid, Counter())[table] += rows
            self._savepoints.update((int(savepoint), xid) for savepoint in savepoints.split())
        return last

    @property
    def largest(self) -> Transaction:
        """The one that wrote the most, savepoints and all."""
        whole: dict[int, Counter[str]] = {}
        for xid, tables in self._tables.items():
            whole.setdefault(self._savepoints.get(xid, xid), Counter()).update(tables)
        return max(
            (Transaction(tables) for tables in whole.values()), key=lambda it: it.rows, default=Transaction(Counter())
        )


def _mark(database: Database) -> str:
    row = database.execute(_sql.mark).fetchone()
    assert row is not None
    return str(row[0])
