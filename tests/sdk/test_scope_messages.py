"""Scopes and times as messages."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from traceapi.types.v1 import scope_pb2
from tracesdk.scopes import cursor_to_message


def _message(cursor: int | datetime) -> scope_pb2.CursorValue:
    return cursor_to_message(cursor)


def test_the_hour_that_comes_twice_is_two_hours() -> None:
    """To Python the two are equal, and hash alike."""
    first = datetime(2026, 10, 25, 2, 30, tzinfo=ZoneInfo("Europe/Berlin"))
    again = first.replace(fold=1)
    seconds = [_message(time).timestamp_value.seconds for time in (first, again)]
    assert seconds == [int(first.timestamp()), int(again.timestamp())]


def test_the_beginning_of_time_is_a_cursor_like_others() -> None:
    assert _message(datetime(1970, 1, 1, tzinfo=UTC)).WhichOneof("value") == "timestamp_value"
    assert _message(0).WhichOneof("value") == "int64_value"
