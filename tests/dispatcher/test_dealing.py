"""How places are dealt out: shares, the reserve, windows, turns. Values only."""

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.wakeups.dealing import JobLine, deal
from dispatcher.wakeups.metering import CLASS_OF_ORIGIN, QueueSettings, TaskClass

TOP = b"\xff" * 9
DEFAULTS = QueueSettings()
LINE = JobLine("job", "dag", False, None, "live", TOP, TOP, 0, 0, None)


def line(origin: str = "live", ready: int = 0, out: int = 0, *, job: str = "job", dag: str = "dag") -> JobLine:
    return replace(LINE, origin=origin, ready=ready, open=out, job_version_id=job, dag=dag)


def dealt(lines: list[JobLine], room: int, settings: QueueSettings = DEFAULTS) -> dict[str, int]:
    """By origin, how many tasks go."""
    counts: Counter[str] = Counter()
    for pick in deal(lines, settings, room):
        counts[pick.line.origin] += pick.tasks
    return dict(counts)


def by_job(lines: list[JobLine], room: int) -> dict[str, int]:
    return {pick.line.job_version_id: pick.tasks for pick in deal(lines, DEFAULTS, room)}


def test_what_has_room_goes() -> None:
    assert dealt([line("live", 3), line("replay", 4), line("backfill", 5)], 100) == {
        "live": 3,
        "replay": 4,
        "backfill": 5,
    }


def test_classes_that_all_have_work_get_their_shares() -> None:
    backlog = [line("live", 1000), line("replay", 1000), line("backfill", 1000)]
    assert dealt(backlog, 100) == {"live": 60, "replay": 30, "backfill": 10}


def test_a_class_uses_what_others_leave_free_but_for_the_reserve() -> None:
    assert dealt([line("backfill", 1000)], 100) == {"backfill": 99}


def test_what_is_out_already_counts() -> None:
    assert dealt([line("live", 100), line("backfill", 100, out=90)], 10) == {"live": 10}


def test_each_class_gets_a_place_before_one_gets_its_second() -> None:
    backlog = [line("live", 9), line("replay", 9), line("backfill", 9)]
    assert dealt(backlog, 4) == {"live": 2, "replay": 1, "backfill": 1}


def test_the_reserve_is_for_live_tasks_only() -> None:
    settings = QueueSettings(live_reserve=3)
    assert dealt([line("backfill", 100)], 10, settings) == {"backfill": 7}
    assert dealt([line("backfill", 100), line("live", out=2)], 8, settings) == {"backfill": 7}
    assert dealt([line("backfill", 100), line("live", out=5)], 5, settings) == {"backfill": 5}
    assert dealt([line("backfill", 100, out=7), line("live", 1)], 3, settings) == {"live": 1}


@pytest.mark.parametrize("settings", [QueueSettings(), QueueSettings(window_size=1), QueueSettings(live_reserve=9)])
def test_a_queue_of_one_place_still_works_off_its_backfills(settings: QueueSettings) -> None:
    assert dealt([line("backfill", 5)], 1, settings) == {"backfill": 1}


def test_a_window_holds_what_workers_would_take() -> None:
    settings = QueueSettings(window_size=10)
    assert dealt([line("live", 100)], 50, settings) == {"live": 10}
    assert dealt([line("live", 100, out=7)], 50, settings) == {"live": 3}
    assert dealt([line("live", 100, out=70)], 50, settings) == {}
    assert dealt([line("live", 100)], 4, settings) == {"live": 4}


def test_sources_are_held_by_no_window() -> None:
    settings = QueueSettings(window_size=1)
    assert dealt([line("live", 5, out=1), line("source_run", 1, job="source")], 9, settings) == {"source_run": 1}


def test_who_has_least_out_is_next() -> None:
    assert by_job([line(ready=100, out=10, job="busy"), line(ready=5, job="idle")], 10) == {"idle": 5, "busy": 5}


def test_dags_take_turns_whatever_the_number_of_their_jobs() -> None:
    lines = [line(ready=100, job=f"a{n}", dag="a") for n in range(9)] + [line(ready=100, job="b", dag="b")]
    assert by_job(lines, 20)["b"] == 10


def test_a_backlog_of_another_class_is_not_held_against_a_dag() -> None:
    lines = [line("backfill", 0, out=50, dag="a", job="a"), line(ready=9, dag="a", job="a"), line(ready=9, dag="b")]
    picks = {(pick.line.dag, pick.line.origin): pick.tasks for pick in deal(lines, DEFAULTS, 4)}
    assert picks == {("a", "live"): 2, ("b", "live"): 2}


def test_a_job_has_no_more_out_than_it_may_in_all_classes_together() -> None:
    lines = [replace(line("live", 9, out=1), max_concurrency=3), replace(line("replay", 9), max_concurrency=3)]
    assert dealt(lines, 50) == {"live": 1, "replay": 1}


def test_a_job_that_is_built_has_two_lines_of_one_class() -> None:
    lines = [replace(line(origin, 9), staged=True) for origin in ("live", "replay")]
    assert sum(dealt(lines, 5).values()) == 4


def test_a_job_without_room_leaves_its_turn_to_others() -> None:
    lines = [replace(line(ready=9, out=1, job="full"), max_concurrency=1), line(ready=9, out=5, job="other")]
    assert by_job(lines, 4) == {"other": 4}


def test_a_stream_keeps_its_order_across_classes() -> None:
    ordered = replace(LINE, ordered=True, ready=1)
    lines = [
        replace(ordered, origin="backfill", first=b"1"),
        replace(ordered, origin="live", first=b"2"),
        replace(ordered, origin="replay", first=b"3"),
    ]
    assert dealt(lines, 9) == {"backfill": 1}


def test_a_run_is_one_place() -> None:
    lines = [replace(line(out=500, job="ordered"), ordered=True), line(ready=9)]
    assert dealt(lines, 50, QueueSettings(window_size=5)) == {"live": 4}


@st.composite
def queues(draw: st.DrawFn) -> list[JobLine]:
    found: list[JobLine] = []
    for number in range(draw(st.integers(1, 5))):
        limit, ordered = draw(st.none() | st.integers(1, 9)), draw(st.booleans())
        for origin in draw(st.sets(st.sampled_from(["live", "replay", "backfill"]), min_size=1)):
            ready = draw(st.integers(0, 1 if ordered else 30))
            first = draw(st.binary(min_size=1, max_size=1)) if ready else None
            out = 0 if ordered else draw(st.integers(0, 9))
            dag = f"dag{number % 2}"
            found.append(JobLine(f"job{number}", dag, ordered, limit, origin, TOP, TOP, out, ready, first))
    return found


@given(
    queues(),
    st.integers(0, 60),
    st.builds(
        QueueSettings,
        window_size=st.none() | st.integers(1, 60),
        live_share=st.integers(1, 100),
        rematerialization_share=st.integers(1, 100),
        backfill_share=st.integers(1, 100),
        live_reserve=st.integers(0, 9),
    ),
)
def test_no_limit_is_passed_and_no_place_is_wasted(lines: list[JobLine], room: int, settings: QueueSettings) -> None:
    picks = deal(lines, settings, room)
    out = sum(entry.places for entry in lines)
    taken = sum(pick.tasks for pick in picks)
    window = settings.window_size if settings.window_size is not None else out + room
    free = max(0, min(room, window - out))
    assert taken <= free
    limits = {entry.job_version_id: entry.max_concurrency for entry in lines}
    by_id: Counter[str] = Counter()
    for entry in lines:
        by_id[entry.job_version_id] += entry.places
    for pick in picks:
        assert pick.tasks <= pick.line.ready
        by_id[pick.line.job_version_id] += pick.tasks
        limit = limits[pick.line.job_version_id]
        assert limit is None or by_id[pick.line.job_version_id] <= limit
    left = free - taken
    live_out = sum(e.places for e in lines if e.origin == "live") + sum(
        p.tasks for p in picks if CLASS_OF_ORIGIN[p.line.origin] is TaskClass.LIVE
    )
    if left > max(0, settings.live_reserve - live_out):  # places that anybody may have were left: nothing wants them
        chosen = {id(pick.line): pick.tasks for pick in picks}
        for entry in lines:
            limit = entry.max_concurrency
            if not entry.ordered and (limit is None or by_id[entry.job_version_id] < limit):
                assert chosen.get(id(entry), 0) == entry.ready
