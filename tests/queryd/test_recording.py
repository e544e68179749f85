"""How records of queries reach the dispatcher: in batches, again until they are taken, and never in a query's way."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from kernel.errors import TraceError
from queryd.recording import Pace, Recorder
from traceapi.control.v1.query_record_pb2 import QueryRecord
from traceapi.types.v1.errors_pb2 import ErrorReason

_SECONDS = 20.0
_FAST = Pace(gather=0.0, again=0.0)


class Dispatcher:
    """Takes records, or not. While `held`, a call waits, and gives up as an unanswered one does."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.tried: list[list[str]] = []
        self.failure: TraceError | None = None
        self.changed = threading.Condition()
        self.answering = threading.Event()
        self.answering.set()

    def send(self, records: Sequence[QueryRecord], seconds: float) -> None:
        with self.changed:
            self.tried.append([record.record_id for record in records])
            self.changed.notify_all()
        if not self.answering.wait(seconds):
            raise TraceError(ErrorReason.ERROR_REASON_DEADLINE_EXCEEDED, "no answer")
        if self.failure is not None:
            raise self.failure
        with self.changed:
            self.batches.append([record.record_id for record in records])
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
