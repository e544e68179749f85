"""Places bound what runs, and what is left of queries that have ended."""

import threading
from pathlib import Path
from typing import Any, cast

import pytest

from kernel.errors import TraceError
from kernel.ids import new_id
from queryd.aftermath import Aftermath
from queryd.callers import Caller
from queryd.engine.frames import Kind
from queryd.engine.process import CellEndedError
from queryd.envelopes import of_query_response
from queryd.resolve import Resolver
from queryd.run_query import QueryRunner, QueryText
from queryd.running import RunningQueries
from queryd.watch import Watcher
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

    def take(self, seconds: float) -> StickyCell:
        self.taken += 1
        return StickyCell(self._go_on)


def _refused(runner: QueryRunner, timeout: float) -> TraceError:
    text = QueryText("select 1", new_id(), Caller("user:alice", record_pb.QUERY_CALL_QUERY), timeout=timeout)
    with pytest.raises(TraceError) as caught:
        list(runner.run(text, lambda query: lambda: None, of_query_response))
    return caught.value


def test_what_is_left_of_ended_queries_is_bounded_by_the_places() -> None:
    """Twice as many as there are places run or are left; then the next one waits, until one of them is cleared away."""
    places, go_on, nothing = 3, threading.Event(), cast("Any", None)
    cells, queries, aftermath = Cells(go_on), RunningQueries(places), Aftermath(lambda pin_id: None)
    resolver = Resolver(nothing, 60)
    runner = QueryRunner(
        *(resolver, cast("Any", cells), nothing, queries, 1),
        *(Watcher(resolver), aftermath, lambda record: None, new_id),
    )
    try:
        for _ in range(2 * places):
            assert _refused(runner, _SECONDS).reason_name == "QUERY_FAILED"
        waited = _refused(runner, timeout=0.3)
        assert (waited.reason_name, waited.metadata, cells.taken) == ("QUERY_LIMIT", {"limit": "time"}, 2 * places)
        assert queries.all() == []
    finally:
        go_on.set()
    assert _refused(runner, _SECONDS).reason_name == "QUERY_FAILED"
    aftermath.close()
    for _ in range(2 * places):  # nothing of them is counted any more
        assert _refused(runner, _SECONDS).reason_name == "QUERY_FAILED"
