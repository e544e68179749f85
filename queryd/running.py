"""The queries that run: how each is stopped, and the list of them.

Many things may stop a query: its time, the client's going away, CancelQuery, the loss of its pin. Whichever comes first
decides what the client hears; all of them kill the cell, and the thread that reads from it goes on from there.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

from kernel.errors import TraceError, Violation
from queryd.engine.process import CellProcess
from traceapi.types.v1.errors_pb2 import ErrorReason


@dataclass(frozen=True, slots=True)
class QueryIdentity:
    """What is known of a query before it runs."""

    query_id: str
    actor: str
    sql: str
    started: datetime


class RunningQuery:
    """One query between its admission and its end. All methods may be called from any thread."""

    def __init__(self, identity: QueryIdentity, deadline: float) -> None:
        """`deadline` is of the monotonic clock."""
        self.identity = identity
        self.deadline = deadline
        self.row_count = 0
        self.pin_id = ""
        self.ended = threading.Event()
        self._lock = threading.Lock()
        self._stopped: TraceError | None = None
        self._cell: CellProcess | None = None

    def stop(self, error: TraceError) -> None:
        """Ends the query with this error, unless it was stopped or has ended before."""
        with self._lock:
            if self._stopped is None and not self.ended.is_set():
                self._stopped = error
            cell = self._cell
        if cell is not None:
            cell.kill()

    def attach(self, cell: CellProcess) -> None:
        """From now on, stopping kills this cell. Raises where the query was stopped already."""
        with self._lock:
            self._cell = cell
        self.check()

    @property
    def stopped(self) -> TraceError | None:
        """What it was stopped with."""
        with self._lock:
            return self._stopped

    def check(self) -> None:
        """Raises what it was stopped with."""
        error = self.stopped
        if error is not None:
            raise error

    def end(self) -> None:
        """Nothing of it runs any more. Can be repeated."""
        with self._lock:
            self.ended.set()
            cell, self._cell = self._cell, None
        if cell is not None:
            cell.close()


def canceled(message: str) -> TraceError:
    """With which a query is stopped that somebody does not want any more."""
    return TraceError(ErrorReason.ERROR_REASON_QUERY_CANCELED, message)


class RunningQueries:
    """All of them, up to a number."""

    def __init__(self, slots: int, retry_after: float = 1.0) -> None:
        self._slots = slots
        self._retry_after = retry_after
        self._lock = threading.Lock()
        self._queries: dict[str, RunningQuery] = {}

    @contextmanager
    def admitted(self, query: RunningQuery) -> Iterator[None]:
        """A place for a query while it runs. OVERLOADED where there is none: a waiting query would hold a thread."""
        query_id = query.identity.query_id
        with self._lock:
            if query_id in self._queries:
                violation = Violation("query_id", "a query with this id is running: make a new id for each query")
                raise TraceError(
                    ErrorReason.ERROR_REASON_INVALID_REQUEST, violation.description, violations=(violation,)
                )
            if len(self._queries) >= self._slots:
                message = f"{self._slots} queries are running, as many as this server takes"
                raise TraceError(ErrorReason.ERROR_REASON_OVERLOADED, message, retry_after=self._retry_after)
            self._queries[query_id] = query
        try:
            yield
        finally:
            query.end()
            with self._lock:
                del self._queries[query_id]

    def get(self, query_id: str) -> RunningQuery:
        """QUERY_NOT_FOUND where it does not run."""
        with self._lock:
            query = self._queries.get(query_id)
        if query is None:
            message = f"no query {query_id} is running"
            raise TraceError(ErrorReason.ERROR_REASON_QUERY_NOT_FOUND, message, metadata={"query_id": query_id})
        return query

    def all(self) -> list[RunningQuery]:
        """Oldest first."""
        with self._lock:
            return sorted(self._queries.values(), key=lambda query: query.identity.started)
