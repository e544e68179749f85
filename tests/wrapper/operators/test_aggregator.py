"""The aggregator: its ranges, its state, and that cuts into runs change nothing. The splitter, its inverse."""

import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from traceapi.operator.v1.operator_service_pb2 import OperatorTask
from traceapi.types.v1.job_pb2 import JobDetails
from tracesdk import Cursor, OperatorError, RangeManifest, Scope, ScopeKind
from tracesdk.testing import OrderedResult, RecordedEvent, job_details, run_ordered, run_task, task_of
from wrapper.operators.aggregator import Aggregator, LateCursor, parse_size
from wrapper.operators.splitter import Splitter, units

_FIRST = datetime(2020, 1, 1, 12, 30, tzinfo=UTC)
_INT64 = st.integers(-(2**63), 2**63 - 1)
_NEAR = st.integers(-500, 500)


def job(size: int | str, *, cursor_type: str = "int64", max_events: int = 1000) -> JobDetails:
    return job_details(
        inputs=["units"],
        outputs={"ranges": None},
        config={"size": size},
        operator="aggregator",
        ordered=True,
        cursor_type=cursor_type,
        max_events_per_emit=max_events,
    )


def tasks_at(cursors: Sequence[Cursor]) -> list[OperatorTask]:
    return [task_of(Scope.at(cursor)) for cursor in cursors]


def in_runs(
    details: JobDetails, tasks: Sequence[OperatorTask], cuts: Sequence[int]
) -> tuple[list[RecordedEvent], bytes]:
    """All events of the tasks, given in runs that are cut at the positions, and the state after them."""
    events: list[RecordedEvent] = []
    state = b""
    borders = [0, *sorted(set(cuts)), len(tasks)]
    for start, end in pairwise(borders):
        if start < end:
            result = run_ordered(Aggregator, tasks[start:end], state=state, job=details)
            events += result.events
            state = result.state
    return events, state


def manifests(result: OrderedResult) -> list[RangeManifest]:
    return [event.manifest for event in result.events if event.manifest is not None]


def test_a_range_closes_on_its_last_cursor_and_is_emitted_by_that_task() -> None:
    tasks = tasks_at(range(500_000, 500_101))
    result = run_ordered(Aggregator, tasks, job=job(100))
    (event,) = result.events
    assert (event.scope.kind, event.scope.first, event.scope.last) == (ScopeKind.RANGE, 500_000, 500_099)
    assert event.task_id == tasks[99].task_id
    assert event.manifest == RangeManifest(500_000, 500_099, 100, ((500_000, 500_099),))
    assert result.watermarks == {"ranges": 500_099}
    assert RangeManifest.from_bytes(result.state) == RangeManifest(500_100, 500_199, 1, ((500_100, 500_100),))


def test_a_range_with_gaps_closes_on_the_first_event_beyond_it_with_explicit_boundaries() -> None:
    tasks = tasks_at([3, 4, 7, 31])
    result = run_ordered(Aggregator, tasks, job=job(10))
    assert manifests(result) == [RangeManifest(0, 9, 3, ((3, 4), (7, 7)))]
    assert result.events[0].task_id == tasks[3].task_id
    assert result.watermarks == {"ranges": 29}, "everything below the range that is open is complete"


def test_the_last_partial_range_stays_open() -> None:
    result = run_ordered(Aggregator, tasks_at(range(95)), job=job(100))
    assert result.events == []
    assert result.watermarks == {"ranges": -1}


def test_times_are_cut_into_aligned_durations() -> None:
    cursors = [_FIRST, _FIRST + timedelta(minutes=1), _FIRST + timedelta(hours=2)]
    result = run_ordered(Aggregator, tasks_at(cursors), job=job("1h", cursor_type="timestamp"))
    (manifest,) = manifests(result)
    assert (manifest.first, manifest.last) == (
        _FIRST.replace(minute=0),
        _FIRST.replace(minute=59, second=59, microsecond=999_999),
    )
    assert manifest.members == ((cursors[0], cursors[0]), (cursors[1], cursors[1])), "times have no neighbours"
    assert result.watermarks == {"ranges": datetime(2020, 1, 1, 13, 59, 59, 999_999, tzinfo=UTC)}


@pytest.mark.parametrize("late", [5, 4])
def test_a_late_cursor_is_an_error_and_what_came_before_it_is_kept(late: int) -> None:
    tasks = tasks_at([3, 5, 9, 12])
    details = job(10)
    with pytest.raises(LateCursor):
        run_ordered(Aggregator, [*tasks, *tasks_at([late])], job=details)
    state = run_ordered(Aggregator, tasks, job=details).state
    with pytest.raises(LateCursor):
        run_ordered(Aggregator, tasks_at([12]), state=state, job=details)


def test_a_closed_range_takes_no_more_units() -> None:
    closed = run_ordered(Aggregator, tasks_at([9]), job=job(10))
    assert len(closed.events) == 1
    with pytest.raises(LateCursor):
        run_ordered(Aggregator, tasks_at([8]), state=closed.state, job=job(10))


def test_more_events_than_an_emit_may_carry_go_in_parts() -> None:
    tasks = tasks_at(range(50))
    result = run_ordered(Aggregator, tasks, job=job(1, max_events=7))
    assert [event.scope.first for event in result.events] == list(range(50))
    assert max(len(emit.events) for emit in result.emits) == 6
    assert [emit.covered_tasks for emit in result.emits] == [6, 12, 18, 24, 30, 36, 42, 48, 0]


@pytest.mark.parametrize("size", [0, -1, 2.5, "", "1", "0s", "1 h", "1.5us", "500ns", None, True])
def test_a_size_that_is_none_is_refused(size: object) -> None:
    with pytest.raises(OperatorError):
        parse_size(size)


@pytest.mark.parametrize(("text", "seconds"), [("1h", 3600), ("1h30m", 5400), ("0.25s", 0.25), ("2d", 172_800)])
def test_durations(text: str, seconds: float) -> None:
    assert parse_size(text) == (seconds * 1e6, True)


@settings(max_examples=200, deadline=None)
@given(
    cursors=st.one_of(st.sets(_NEAR, min_size=1), st.sets(_INT64, min_size=1, max_size=20)).map(sorted),
    size=st.one_of(st.integers(1, 20), st.integers(1, 2**53)),
    cuts=st.lists(st.integers(0, 1000), max_size=10),
    max_events=st.integers(2, 9),
)
def test_the_splitter_undoes_the_aggregator_however_the_events_are_cut_into_runs(
    cursors: list[int], size: int, cuts: list[int], max_events: int
) -> None:
    details = job(size, max_events=max_events)
    tasks = tasks_at(cursors)
    cut = [at % (len(tasks) + 1) for at in cuts]
    events, state = in_runs(details, tasks, cut)
    whole, whole_state = in_runs(details, tasks, [])
    assert (events, state) == (whole, whole_state), "the same events by the same tasks, whatever the runs"
    split: list[object] = []
    for event in events:
        assert event.manifest is not None
        assert event.manifest.unit_count == len(list(units(event.manifest)))
        result = run_task(
            Splitter,
            scope=event.scope,
            manifest=event.manifest,
            job=job_details(outputs={"units": None}, max_events_per_emit=max_events),
        )
        split += [one.scope.first for one in result.events]
    still_open = list(units(RangeManifest.from_bytes(state)))
    assert split + still_open == cursors


def test_the_splitter_needs_a_manifest() -> None:
    with pytest.raises(OperatorError, match="no manifest"):
        run_task(Splitter, scope=Scope.between(0, 9), job=job_details(outputs={"units": None}))


def test_a_task_costs_less_than_fifty_microseconds() -> None:
    tasks = tasks_at(range(20_000))
    started = time.process_time()
    events, _ = in_runs(job(100), tasks, range(0, 20_000, 500))
    each = (time.process_time() - started) / len(tasks)
    assert len(events) == 200
    assert each < 50e-6
