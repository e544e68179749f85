"""What waits between the call that asked for a query and the call that reads it."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, cast

import pytest

from kernel.errors import TraceError
from queryd.callers import Caller
from queryd.flight.held import HeldQueries, HeldQuery, Tie
from queryd.query_parts import Started
from queryd.running import QueryIdentity, RunningQuery, canceled
from traceapi.control.v1.query_record_pb2 import QUERY_AS_OF_NOW, QUERY_CALL_FLIGHT


class _Call:
    """A call that is over once it is told so."""

    def __init__(self) -> None:
        self.ends: list[Any] = []

    def add_callback(self, end: Any) -> bool:
        self.ends.append(end)
        return True


class _Query:
    """As queryd/run_query.py has one, between its first part and the rest."""

    def __init__(self) -> None:
        self.call, self.given_back = _Call(), 0
        caller = Caller("user:alice", QUERY_CALL_FLIGHT)
        self.running = RunningQuery(QueryIdentity("q", caller, "select 1", QUERY_AS_OF_NOW, datetime.now(UTC)), 0.0)
        tie = Tie(cast("Any", self.call))
        tie.start(self.running)
        parts = self._parts()
        next(parts)
        self.held = HeldQuery("q", "user:alice", Started(None, (), 0, 0, b""), cast("Any", parts), tie)

    def _parts(self) -> Iterator[None]:
        try:
            yield
        finally:
            self.given_back += 1


@pytest.fixture
def queries() -> Iterator[HeldQueries]:
    made = HeldQueries(60, time.monotonic)
    yield made
    made.close()


def test_a_query_whose_client_has_gone_away_is_not_kept(queries: HeldQueries) -> None:
    query = _Query()
    for end in query.call.ends:
        end()
    queries.hold(query.held)
    assert query.given_back == 1


def test_a_query_that_is_stopped_while_it_waits_gives_back_its_place_and_says_why(queries: HeldQueries) -> None:
    query = _Query()
    queries.hold(query.held)
    assert query.given_back == 0
    query.running.stop(canceled("not wanted"))
    assert query.given_back == 1
    taken = queries.take("q", "user:alice")
    assert taken is query.held
    with pytest.raises(TraceError, match="not wanted"):
        taken.tie.check()


def test_a_query_that_is_stopped_while_it_is_read_ends_with_its_reader(queries: HeldQueries) -> None:
    query = _Query()
    queries.hold(query.held)
    assert queries.take("q", "user:alice") is query.held
    query.running.stop(canceled("not wanted"))
    assert query.given_back == 0


def test_a_call_that_ends_after_it_has_asked_leaves_its_query(queries: HeldQueries) -> None:
    query = _Query()
    queries.hold(query.held)
    for end in query.call.ends:
        end()
    assert query.running.stopped is None
    assert query.given_back == 0
