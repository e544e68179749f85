"""What stops queries beside them: their time, the loss of their pins, and clients that do not read."""

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import Any, cast

import pytest

from kernel.errors import TraceError
from queryd.callers import Caller
from queryd.running import QueryIdentity, RunningQuery
from queryd.watch import Watcher
from traceapi.control.v1.query_record_pb2 import QUERY_AS_OF_NOW, QUERY_CALL_QUERY
from traceapi.types.v1.errors_pb2 import ErrorReason

_SECONDS = 20.0
_LEASE = 60


class Clock:
    """Moves when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Pins:
    """A resolver that renews as it is told to, and says what it was asked."""

    lease_seconds = _LEASE

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.asked = threading.Semaphore(0)
        self.answers = threading.Event()
        self.answers.set()

    def renew(self, pin_id: str) -> None:
        self.asked.release()
        assert self.answers.wait(_SECONDS)
        if self.error is not None:
            raise self.error


class Killed:
    """A cell that only hears that it is to end."""

    def __init__(self) -> None:
        self.heard = threading.Event()

    def kill(self) -> None:
        self.heard.set()


class Watched:
    """A watcher of queries, whose time passes at once."""

    def __init__(self, stack: ExitStack) -> None:
        self.clock, self.pins = Clock(), Pins()
        self.watcher = Watcher(cast("Any", self.pins), self.clock)
        stack.callback(self.watcher.close)
        self._stack = stack
        self._cells: dict[RunningQuery, Killed] = {}

    def query(self, timeout: float, pin_id: str = "", abandon: Callable[[], object] = lambda: None) -> RunningQuery:
        who, now = Caller("user:a", QUERY_CALL_QUERY), datetime.now(UTC)
        identity = QueryIdentity("q", who, "select 1", QUERY_AS_OF_NOW, now)
        query = RunningQuery(identity, self.clock() + timeout)
        query.pin_id = pin_id
        cell = self._cells[query] = Killed()
        query.attach(cast("Any", cell))
        self._stack.enter_context(self.watcher.watching(query, timeout, abandon))
        return query

    def pass_time(self, seconds: float) -> None:
        """And wakes who waits for it."""
        self.clock.now += seconds
        with self.watcher._changed:
            self.watcher._changed.notify_all()

    def stopped(self, query: RunningQuery) -> TraceError:
        """What a query was stopped with, once it is."""
        assert self._cells[query].heard.wait(_SECONDS)
        assert query.stopped is not None
        return query.stopped


@pytest.fixture
def watched() -> Iterator[Watched]:
    with ExitStack() as stack:
        yield Watched(stack)


def _join_renewals() -> None:
    """Returns once those that were begun are over."""
    for thread in threading.enumerate():
        if thread.name == "renewal":
            thread.join(_SECONDS)


def test_queries_share_a_thread_and_end_without_one(watched: Watched) -> None:
    before = set(threading.enumerate())
    for _ in range(20):
        watched.query(60).end()
    assert set(threading.enumerate()) <= before


def test_each_is_stopped_at_its_own_time(watched: Watched) -> None:
    late, soon, ended = watched.query(30), watched.query(10), watched.query(10)
    ended.end()
    watched.pass_time(10)
    assert watched.stopped(soon).metadata == {"limit": "time"}
    assert (late.stopped, ended.stopped) == (None, None)
    watched.pass_time(20)
    assert watched.stopped(late).metadata == {"limit": "time"}


def test_pins_are_renewed_until_one_is_lost(watched: Watched) -> None:
    query = watched.query(600, pin_id="p")
    for _ in range(3):
        watched.pass_time(_LEASE / 3)
        assert watched.pins.asked.acquire(timeout=_SECONDS)
    watched.pins.error = TraceError(ErrorReason.ERROR_REASON_PIN_EXPIRED, "it has expired")
    assert query.stopped is None
    watched.pass_time(_LEASE / 3)
    assert watched.stopped(query).reason == ErrorReason.ERROR_REASON_PIN_EXPIRED


def test_a_renewal_that_fails_of_a_defect_is_tried_again_soon(watched: Watched) -> None:
    query = watched.query(600, pin_id="p")
    watched.pins.error = ValueError("a defect")
    for seconds in (_LEASE / 3, 1, 1):
        watched.pass_time(seconds)
        assert watched.pins.asked.acquire(timeout=_SECONDS)
        _join_renewals()
    assert query.stopped is None


def test_a_renewal_for_which_there_is_no_thread_is_tried_again_soon(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched.query(600, pin_id="p")
    tried, start = threading.Event(), threading.Thread.start

    def fail(thread: threading.Thread) -> None:
        tried.set()
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", fail)
    watched.pass_time(_LEASE / 3)
    assert tried.wait(_SECONDS)
    monkeypatch.setattr(threading.Thread, "start", start)

    def renewed_a_second_later() -> bool:
        watched.pass_time(1)
        return watched.pins.asked.acquire(timeout=0.1)

    assert any(renewed_a_second_later() for _ in range(200))


def test_what_becomes_of_a_pin_that_was_let_go_of_is_nobodys_concern(watched: Watched) -> None:
    query = watched.query(600, pin_id="p")
    watched.pins.answers.clear()
    watched.pass_time(_LEASE / 3)
    assert watched.pins.asked.acquire(timeout=_SECONDS)
    watched.pins.error = TraceError(ErrorReason.ERROR_REASON_PIN_EXPIRED, "it was released")
    query.pin_id = ""  # by a query that waits for watermarks, which then pins again
    watched.pins.answers.set()
    _join_renewals()
    watched.pins.error = None
    query.pin_id = "q"
    watched.pass_time(_LEASE / 3)
    assert watched.pins.asked.acquire(timeout=_SECONDS)
    assert query.stopped is None


def test_a_dispatcher_that_is_away_ends_a_query_with_its_lease(watched: Watched) -> None:
    watched.pins.error = TraceError(ErrorReason.ERROR_REASON_UNAVAILABLE, "away")
    query = watched.query(600, pin_id="p")
    watched.pass_time(_LEASE / 3)
    assert watched.pins.asked.acquire(timeout=_SECONDS)
    watched.pass_time(_LEASE / 3)
    assert watched.pins.asked.acquire(timeout=_SECONDS)
    assert query.stopped is None
    watched.pass_time(_LEASE / 3)
    assert watched.stopped(query).reason == ErrorReason.ERROR_REASON_UNAVAILABLE


def test_a_renewal_that_is_not_answered_delays_no_limit(watched: Watched) -> None:
    watched.pins.answers.clear()
    held, other = watched.query(30, pin_id="p"), watched.query(40)
    watched.pass_time(_LEASE / 3)
    assert watched.pins.asked.acquire(timeout=_SECONDS)
    watched.pass_time(10)
    assert watched.stopped(held).metadata == {"limit": "time"}
    watched.pass_time(10)
    assert watched.stopped(other).metadata == {"limit": "time"}
    watched.pins.answers.set()


def test_a_client_that_reads_nothing_is_abandoned_after_the_stop(watched: Watched) -> None:
    abandoned, never = threading.Event(), threading.Event()
    query, ended = watched.query(5, abandon=abandoned.set), watched.query(5, abandon=never.set)
    watched.pass_time(5)
    watched.stopped(query)
    watched.stopped(ended)
    assert not abandoned.is_set()
    ended.end()
    watched.pass_time(10)
    assert abandoned.wait(_SECONDS)
    assert not never.is_set()
