"""What people type as scopes: read as the dataset is cut, or refused with what one looks like."""

import pytest

from ctl.errors import CtlError, ExitCode
from ctl.scope_text import parse_scope
from tests.ctl.canned import Canned, int64, int64_range
from tests.ctl.conftest import Run
from traceapi.control.v1 import dataset_service_pb2, task_service_pb2
from traceapi.types.v1.scope_pb2 import CursorType, Scope


def test_the_type_is_the_first_that_fits_where_none_is_known() -> None:
    assert parse_scope("500000..500099") == int64_range(500_000, 500_099)
    assert parse_scope("7") == Scope(cursor=int64(7))
    assert parse_scope("2024-05-01T00:00:00Z").cursor.timestamp_value.seconds == 1_714_521_600
    assert parse_scope("abc").cursor.string_value == "abc"


def test_the_type_is_the_datasets_where_it_is_known() -> None:
    assert parse_scope("7", CursorType.CURSOR_TYPE_STRING).cursor.string_value == "7"
    assert parse_scope("a..b", CursorType.CURSOR_TYPE_UNSPECIFIED) == Scope(partition_key="a..b")


@pytest.mark.parametrize("text", ["1..2..3", "..", "1..", "", "9223372036854775808", "1..99999999999999999999"])
def test_what_is_no_scope_of_any_type_is_refused(text: str) -> None:
    with pytest.raises(CtlError, match="not a scope") as caught:
        parse_scope(text)
    assert "500000..500099" in caught.value.remedy
    assert caught.value.exit_code == ExitCode.USAGE


@pytest.mark.parametrize(
    ("cursor_type", "text", "remedy"),
    [
        (CursorType.CURSOR_TYPE_INT64, "rubbish", "of type int64: write 500000, or 500000..500099"),
        (CursorType.CURSOR_TYPE_INT64, "2024-05-01T00:00:00Z", "of type int64"),
        (CursorType.CURSOR_TYPE_TIMESTAMP, "7", "of type timestamp: write 2024-05-01T12:00:00Z"),
        (CursorType.CURSOR_TYPE_STRING, "x" * 256, "of type string: write one value"),
    ],
)
def test_what_is_no_scope_of_the_dataset_is_refused_with_one_that_is(
    cursor_type: CursorType.ValueType, text: str, remedy: str
) -> None:
    with pytest.raises(CtlError, match=r"not a scope of eth\.checked") as caught:
        parse_scope(text, cursor_type, of="eth.checked")
    assert remedy in caught.value.remedy


def test_a_range_that_ends_before_it_begins_is_refused() -> None:
    with pytest.raises(CtlError, match=r"5\.\.4: the last cursor is below the first"):
        parse_scope("5..4")


@pytest.mark.parametrize("scope", ["rubbish", "", "..", "9999999999999999999"])
def test_why_checks_the_scope_by_the_datasets_cursor(run: Run, canned: Canned, scope: str) -> None:
    result = run("why", f"eth.blocks@{scope}")
    assert result.exit_code == 2
    assert result.stderr == (
        f"error: not a scope of eth.blocks: {scope!r}\n"
        "what to do: its cursor is of type int64: write 500000, or 500000..500099\n"
    )
    assert not any(isinstance(request, task_service_pb2.ExplainTaskRequest) for request in canned.requests)


def test_why_of_a_scope_asks_for_it(run: Run, canned: Canned) -> None:
    assert run("why", "eth.blocks@500000..500099").exit_code == 0
    asked = canned.asked(task_service_pb2.ExplainTaskRequest).dataset_scope
    assert (asked.dataset_id, asked.scope) == ("eth.blocks", int64_range(500_000, 500_099))


def test_events_are_asked_for_by_the_datasets_cursor(run: Run, canned: Canned) -> None:
    refused = run("event", "ls", "--dataset", "eth.blocks", "--scope", "rubbish")
    assert (refused.exit_code, "its cursor is of type int64" in refused.stderr) == (2, True)
    assert run("event", "ls", "--dataset", "eth.blocks", "--scope", "7").exit_code == 0
    assert canned.asked(dataset_service_pb2.ListEventsRequest).scope == Scope(cursor=int64(7))
