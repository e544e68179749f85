"""How records of queries reach the dispatcher: in batches, again until they are taken, and never in a query's way."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import pytest

from kernel.errors import TraceError
from queryd.recording import Pace, Recorder
from traceapi.control.v1.query_record_pb2 import QueryRecord
from traceapi.types.v1.errors_pb2 import ErrorReason

_SECONDS = 20.0
_FAST = Pace(gather=0.0, again=0.0)


class Dispatcher:
    """Takes records, or not: `failure` is of all batches, `at_fault` of those with such a record in them.

    While it is not `answering`, a call waits, and gives up as an unanswered one does.
    """

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.tried: list[list[str]] = []
        self.failure: TraceError | None = None
        self.at_fault: dict[str, TraceError] = {}
        self.changed = threading.Condition()
        self.answering = threading.Event()
        self.answering.set()

    def send(self, records: Sequence[QueryRecord], seconds: float) -> None:
        with self.changed:
            ids = [record.record_id for record in records]
            self.tried.append(ids)
            failure = next((self.at_fault[name] for name in ids if name in self.at_fault), self.failure)
            self.changed.notify_all()
        if not self.answering.wait(seconds):
            raise TraceError(ErrorReason.ERROR_REASON_DEADLINE_EXCEEDED, "no answer")
        if failure is not None:
            raise failure
        with self.changed:
            self.batches.append(ids)
            self.changed.notify_all()

    def wait(self, *, tried: int = 0, taken: int = 0) -> None:
        with self.changed:
            assert self.changed.wait_for(
                lambda: len(self.tried) >= tried and sum(map(len, self.batches)) >= taken, _SECONDS
            ), self.tried


@contextmanager
def _recorder(dispatcher: Dispatcher, pace: Pace = _FAST) -> Iterator[Recorder]:
    recorder = Recorder(dispatcher.send, pace)
    try:
        yield recorder
    finally:
        dispatcher.answering.set()
        recorder.close()


def _record(recorder: Recorder, *names: str) -> None:
    for name in names:
        recorder.record(QueryRecord(record_id=name))


def _record_together(dispatcher: Dispatcher, recorder: Recorder, *names: str) -> None:
    """So that they are in one batch: the one before it, of "first" alone, is answered when they are all there."""
    dispatcher.answering.clear()
    _record(recorder, "first")
    dispatcher.wait(tried=1)
    _record(recorder, *names)
    dispatcher.answering.set()


def test_what_comes_while_a_batch_is_sent_goes_in_the_next_one() -> None:
    dispatcher = Dispatcher()
    dispatcher.answering.clear()
    with _recorder(dispatcher) as recorder:
        _record(recorder, "a")
        dispatcher.wait(tried=1)
        _record(recorder, "b", "c", "d")
        dispatcher.answering.set()
        dispatcher.wait(taken=4)
    assert dispatcher.batches == [["a"], ["b", "c", "d"]]


def test_a_batch_has_so_many_records_at_most() -> None:
    dispatcher = Dispatcher()
    dispatcher.answering.clear()
    with _recorder(dispatcher, Pace(gather=0.0, again=0.0, batch=2)) as recorder:
        _record(recorder, "a")
        dispatcher.wait(tried=1)
        _record(recorder, "b", "c", "d")
        dispatcher.answering.set()
        dispatcher.wait(taken=4)
    assert dispatcher.batches == [["a"], ["b", "c"], ["d"]]


def test_a_batch_has_so_many_bytes_at_most_and_a_larger_record_goes_alone() -> None:
    dispatcher = Dispatcher()
    with _recorder(dispatcher, Pace(gather=0.0, again=0.0, batch_bytes=10)) as recorder:
        _record_together(dispatcher, recorder, "aaa", "bbb", "c" * 20, "ddd")
        dispatcher.wait(taken=5)
    assert dispatcher.batches == [["first"], ["aaa", "bbb"], ["c" * 20], ["ddd"]]


@pytest.mark.parametrize(
    "reason",
    [
        ErrorReason.ERROR_REASON_INVALID_REQUEST,
        ErrorReason.ERROR_REASON_MESSAGE_TOO_LARGE,
        ErrorReason.ERROR_REASON_PERMISSION_DENIED,
        ErrorReason.ERROR_REASON_INTERNAL,
        ErrorReason.ERROR_REASON_DEADLINE_EXCEEDED,
    ],
    ids=ErrorReason.Name,
)
def test_of_a_batch_that_is_refused_only_the_record_at_fault_is_lost(reason: ErrorReason.ValueType) -> None:
    dispatcher, names = Dispatcher(), [f"{number}" for number in range(10)]
    dispatcher.at_fault["6"] = TraceError(reason, "it is at fault")
    with _recorder(dispatcher) as recorder:
        _record_together(dispatcher, recorder, *names)
        dispatcher.wait(taken=10)
        assert recorder.lost == 1
    taken = [name for batch in dispatcher.batches for name in batch]
    assert taken == ["first", "0", "1", "2", "3", "4", "5", "7", "8", "9"]


def test_a_record_that_is_alone_is_tried_several_times() -> None:
    dispatcher = Dispatcher()
    dispatcher.at_fault["a"] = TraceError(ErrorReason.ERROR_REASON_INTERNAL, "a defect")
    with _recorder(dispatcher, Pace(gather=0.0, again=0.0, tries=3)) as recorder:
        _record(recorder, "a")
        dispatcher.wait(tried=3)
        _record(recorder, "b")
        dispatcher.wait(taken=1)
        assert recorder.lost == 1
    assert [batch[0] for batch in dispatcher.tried].count("a") >= 3
    assert dispatcher.batches == [["b"]]


def test_while_no_dispatcher_is_there_batches_become_smaller_and_nothing_is_lost() -> None:
    dispatcher = Dispatcher()
    with _recorder(dispatcher, Pace(gather=0.0, again=0.0, tries=2)) as recorder:
        dispatcher.at_fault["a"] = TraceError(ErrorReason.ERROR_REASON_UNAVAILABLE, "nobody is there")
        _record_together(dispatcher, recorder, "a", "b", "c", "d")
        dispatcher.wait(tried=20)
        dispatcher.at_fault.clear()
        dispatcher.wait(taken=5)
        assert recorder.lost == 0
    together = ["a", "b", "c", "d"]
    assert dispatcher.tried[1:6] == [together, together, together[:2], together[:2], together[:1]]


def test_batches_grow_again_once_they_are_taken() -> None:
    dispatcher = Dispatcher()
    dispatcher.at_fault["a"] = TraceError(ErrorReason.ERROR_REASON_INVALID_REQUEST, "a rule is broken")
    with _recorder(dispatcher) as recorder:
        _record_together(dispatcher, recorder, "a", *"bcdefgh")
        dispatcher.wait(taken=8)
    assert dispatcher.batches == [["first"], ["b"], ["c", "d"], ["e", "f", "g", "h"]]


def test_what_was_not_taken_is_sent_again_as_it_was() -> None:
    dispatcher = Dispatcher()
    dispatcher.failure = TraceError(ErrorReason.ERROR_REASON_UNAVAILABLE, "it is being restarted")
    with _recorder(dispatcher) as recorder:
        _record(recorder, "a")
        dispatcher.wait(tried=3)
        dispatcher.failure = None
        dispatcher.wait(taken=1)
        assert recorder.lost == 0
    assert dispatcher.batches == [["a"]]


def test_what_there_is_no_room_for_is_counted_and_keeps_nobody_waiting() -> None:
    dispatcher = Dispatcher()
    dispatcher.answering.clear()
    with _recorder(dispatcher, Pace(gather=0.0, again=0.0, room=2)) as recorder:
        _record(recorder, "a")
        dispatcher.wait(tried=1)
        _record(recorder, "b", "c", "d")
        assert recorder.lost == 2
        dispatcher.answering.set()
        dispatcher.wait(taken=2)
    assert dispatcher.batches == [["a"], ["b"]]


def test_what_is_refused_for_good_is_counted_and_hinders_no_other() -> None:
    dispatcher = Dispatcher()
    dispatcher.failure = TraceError(ErrorReason.ERROR_REASON_INVALID_REQUEST, "a rule is broken")
    with _recorder(dispatcher) as recorder:
        _record(recorder, "a")
        dispatcher.wait(tried=1)
        dispatcher.failure = None
        _record(recorder, "b")
        dispatcher.wait(taken=1)
        assert recorder.lost == 1
    assert dispatcher.batches == [["b"]]


def test_closing_sends_the_rest_at_once() -> None:
    dispatcher = Dispatcher()
    with _recorder(dispatcher, Pace(gather=_SECONDS * 10, again=0.0)) as recorder:
        _record(recorder, "a", "b")
        recorder.close()
        recorder.close()
        assert dispatcher.batches == [["a", "b"]]


def test_closing_ends_though_no_dispatcher_answers() -> None:
    dispatcher = Dispatcher()
    dispatcher.failure = TraceError(ErrorReason.ERROR_REASON_UNAVAILABLE, "nobody is there")
    with _recorder(dispatcher, Pace(gather=0.0, again=0.01, last=0.05)) as recorder:
        _record(recorder, "a", "b")
        recorder.close()
        assert recorder.lost == 2
    assert dispatcher.batches == []


def test_a_record_that_meets_nobody_lets_others_go_before_it_and_is_lost_in_the_end() -> None:
    """They are taken, so somebody is there."""
    dispatcher = Dispatcher()
    dispatcher.at_fault["a"] = TraceError(ErrorReason.ERROR_REASON_UNAVAILABLE, "nobody is there")
    with _recorder(dispatcher, Pace(gather=0.0, again=0.0, tries=3)) as recorder:
        _record_together(dispatcher, recorder, "a", "b")
        dispatcher.wait(taken=2)
        assert recorder.lost == 0
        for number in range(2, 5):
            _record(recorder, f"{number}")
            dispatcher.wait(taken=number + 1)
        assert recorder.lost == 1
    assert dispatcher.batches == [["first"], ["b"], ["2"], ["3"], ["4"]]


def test_in_an_outage_nothing_is_lost_however_long_it_takes() -> None:
    dispatcher = Dispatcher()
    dispatcher.failure = TraceError(ErrorReason.ERROR_REASON_UNAVAILABLE, "nobody is there")
    with _recorder(dispatcher, Pace(gather=0.0, again=0.0, tries=2)) as recorder:
        _record(recorder, "a", "b", "c")
        dispatcher.wait(tried=200)
        dispatcher.failure = None
        dispatcher.wait(taken=3)
        assert recorder.lost == 0
    assert sorted(name for batch in dispatcher.batches for name in batch) == ["a", "b", "c"]


def test_a_defect_in_sending_is_no_end_of_it() -> None:
    dispatcher = Dispatcher()
    dispatcher.at_fault["a"] = cast("Any", ValueError("a defect"))
    with _recorder(dispatcher, Pace(gather=0.0, again=0.0, tries=2)) as recorder:
        _record(recorder, "a")
        dispatcher.wait(tried=2)
        _record(recorder, "b")
        dispatcher.wait(taken=1)
        assert recorder.lost == 1
    assert dispatcher.batches == [["b"]]
