"""Places bound what runs, and what is left of queries that have ended."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from kernel.errors import TraceError
from kernel.ids import new_id
from queryd.aftermath import Aftermath
from queryd.callers import Caller
from queryd.engine.frames import Kind
from queryd.engine.process import CellEndedError
from queryd.envelopes import of_query_response
from queryd.query_parts import QueryText
from queryd.run_query import QueryRunner
from queryd.running import QueryIdentity, RunningQueries, RunningQuery, canceled
from tests.queryd.runners import runner_of
from traceapi.control.v1 import query_record_pb2 as record_pb

_SECONDS = 30.0


class StickyCell:
    """Ends as it is asked, and is not cleared away before it may be."""

    store = files = Path("/")

    def __init__(self, go_on: threading.Event) -> None:
        self._go_on = go_on

    def send(self, kind: Kind, payload: bytes) -> None: ...

    def receive(self) -> tuple[Kind, bytes]:
        raise CellEndedError(11, "")

    def kill(self) -> None: ...

    def close(self) -> None:
        assert self._go_on.wait(_SECONDS)


class Cells:
    """A pool that counts what was taken."""

    def __init__(self, go_on: threading.Event) -> None:
        self._go_on = go_on
        self.taken = 0

    def take(self, seconds: float, check: object) -> StickyCell:
        self.taken += 1
        return StickyCell(self._go_on)


def _refused(runner: QueryRunner, timeout: float) -> TraceError:
    text = QueryText("select 1", new_id(), Caller("user:alice", record_pb.QUERY_CALL_QUERY), timeout=timeout)
    with pytest.raises(TraceError) as caught:
        list(runner.run(text, lambda query: lambda: None, of_query_response))
    return caught.value


def _query() -> RunningQuery:
    who, now = Caller("user:bob", record_pb.QUERY_CALL_QUERY), datetime.now(UTC)
    return RunningQuery(QueryIdentity(new_id(), who, "", record_pb.QUERY_AS_OF_NOW, now), float("inf"))


@contextmanager
def _place(queries: RunningQueries, query: RunningQuery) -> Iterator[None]:
    """Of a query of which nothing is left."""
    with queries.admitted(query) as clear:
        try:
            yield
        finally:
            clear()


def test_what_is_left_of_ended_queries_is_bounded_by_the_places() -> None:
    """Twice as many as there are places run or are left; then the next one waits, until one of them is cleared away."""
    places, go_on = 3, threading.Event()
    cells, queries, aftermath = Cells(go_on), RunningQueries(places), Aftermath(lambda pin_id: None)
    runner = runner_of(cells, aftermath, queries)
    try:
        for _ in range(2 * places):
            assert _refused(runner, _SECONDS).reason_name == "INTERNAL"
        waited = _refused(runner, timeout=0.3)
        assert (waited.reason_name, waited.metadata, cells.taken) == ("QUERY_LIMIT", {"limit": "time"}, 2 * places)
        assert queries.all() == []
    finally:
        go_on.set()
    assert _refused(runner, _SECONDS).reason_name == "INTERNAL"
    aftermath.close()
    for _ in range(2 * places):  # nothing of them is counted any more
        assert _refused(runner, _SECONDS).reason_name == "INTERNAL"


def test_who_waited_for_a_place_in_vain_is_on_record() -> None:
    """By its time or its user; who was told to come again is not, for that costs as little as it can."""
    told, aftermath, queries = list[record_pb.QueryRecord](), Aftermath(lambda pin_id: None), RunningQueries(1, 1)
    runner = runner_of(Cells(threading.Event()), aftermath, queries, told.append)
    with queries.admitted(_query()):
        assert _refused(runner, timeout=0.3).reason_name == "QUERY_LIMIT"
        with ThreadPoolExecutor(1) as pool:
            asked = pool.submit(_refused, runner, _SECONDS)
            while len(queries.all()) < 2 and not asked.done():
                wait([asked], 0.01)
            assert _refused(runner, _SECONDS).reason_name == "OVERLOADED"
            queries.all()[-1].stop(canceled("enough"))
            assert asked.result(_SECONDS).reason_name == "QUERY_CANCELED"
    aftermath.close()
    assert [(record.reason, record.actor) for record in told] == [
        ("QUERY_LIMIT", "user:alice"),
        ("QUERY_CANCELED", "user:alice"),
    ]
    assert told[0].elapsed_duration.ToMicroseconds() >= 300_000


def test_as_many_as_there_are_places_step_aside_and_come_back_before_those_that_wait() -> None:
    queries, comes_back, order = RunningQueries(1, waiting=1), threading.Event(), list[str]()

    def waits_aside() -> None:
        with _place(queries, first), queries.aside(first):
            aside.set()
            assert comes_back.wait(_SECONDS)
        order.append("first")

    def waits() -> None:
        with _place(queries, _query()):
            order.append("third")

    first, second, aside = _query(), _query(), threading.Event()
    with ThreadPoolExecutor(2) as pool:
        ends = [pool.submit(waits_aside)]
        assert aside.wait(_SECONDS)
        with _place(queries, second), queries.aside(second):  # which keeps its place: one is aside already
            ends.append(pool.submit(waits))
            while len(queries.all()) < 3:
                wait(ends, 0.01)
            with pytest.raises(TraceError, match="1 queries are running"), queries.admitted(_query()):
                pass
            comes_back.set()
            while not queries._returning:
                wait(ends, 0.01)
            assert order == []
        for end in ends:
            end.result(_SECONDS)
    assert order == ["first", "third"]
    assert queries.all() == []


def test_a_query_that_is_stopped_while_it_comes_back_ends() -> None:
    queries, query = RunningQueries(1), _query()
    with _place(queries, query), ExitStack() as aside:
        aside.enter_context(queries.aside(query))
        with _place(queries, _query()):
            query.stop(canceled("enough"))
            with pytest.raises(TraceError, match="enough"):
                aside.close()
    with _place(queries, _query()):
        assert len(queries.all()) == 1
