"""How much work a process asks for, and how cancellations find theirs."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from traceapi.operator.v1.operator_service_pb2 import CancelNotice, ReceiveWorkResponse, WorkUnit
from tracesdk.cancellation import Cancellation
from tracesdk.errors import TaskCanceled
from tracesdk.inbox import Credits, Inbox


def test_slow_units_are_asked_for_one_ahead_and_quick_ones_by_the_hundred() -> None:
    slow = Credits()
    assert slow.first() == 2
    assert [slow.finished(10.0) for _ in range(5)] == [1] * 5
    quick = Credits()
    quick.first()
    assert quick.finished(0.0001) > 400
    assert quick.outstanding == 512
    source = Credits(1)
    assert (source.first(), source.finished(100.0)) == (1, 1)


@given(st.lists(st.floats(0, 100), max_size=300), st.integers(1, 600))
def test_a_process_is_never_left_without_work_nor_given_too_much(seconds: list[float], most: int) -> None:
    credit = Credits(most)
    granted = credit.first()
    for done, each in enumerate(seconds, start=1):
        granted += credit.finished(each)
        assert credit.outstanding == granted - done
        assert 1 <= credit.outstanding <= most


def test_a_cancellation_finds_its_unit_while_it_runs_and_one_that_waits_is_never_begun() -> None:
    inbox = Inbox()
    assert inbox.add(ReceiveWorkResponse(units=[WorkUnit(unit_id=number) for number in (1, 2, 3)])) == []
    first = inbox.next()
    assert first is not None
    notices = [CancelNotice(unit_id=number, reason="stop") for number in (1, 2, 9)]
    assert inbox.add(ReceiveWorkResponse(cancellations=notices)) == [2]
    assert first.cancellation.canceled
    third = inbox.next()
    assert third is not None
    assert (third.message.unit_id, third.cancellation.canceled) == (3, False)
    inbox.ended(first)
    inbox.close()
    assert inbox.next() is None


def test_a_unit_that_comes_with_its_cancellation_is_never_begun() -> None:
    inbox = Inbox()
    notice = CancelNotice(unit_id=1, reason="stop")
    assert inbox.add(ReceiveWorkResponse(units=[WorkUnit(unit_id=1)], cancellations=[notice])) == [1]
    inbox.close()
    assert inbox.next() is None


def test_a_call_that_starts_after_the_cancellation_is_canceled_too() -> None:
    class Call:
        canceled = False

        def cancel(self) -> None:
            self.canceled = True

    cancellation, before, after = Cancellation(), Call(), Call()
    with cancellation.watching(before):
        cancellation.cancel("enough")
    with cancellation.watching(after):
        pass
    assert (before.canceled, after.canceled) == (True, True)
    with pytest.raises(TaskCanceled, match="enough"):
        cancellation.check()
