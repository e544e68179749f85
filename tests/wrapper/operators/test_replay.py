"""`replay`: portions and their borders, order, limits, pace, resuming; and the process killed in its middle."""

import gzip
import json
import signal
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from traceapi.types.v1.errors_pb2 import ErrorReason, ItemError
from traceapi.types.v1.job_pb2 import JobDetails
from tracesdk import OperatorError, Scope
from tracesdk.testing import OperatorHarness, SourceResult, job_details, operator_task, run_source
from wrapper.operators.replay import Cut, Pace, Portion, Position, Replay, portions

_SCHEMA = {"number": "int64", "text": "string"}


def job(
    path: Path | str,
    *,
    schema: Mapping[str, str] = _SCHEMA,
    cursor_type: str = "int64",
    max_events: int = 1000,
    **config: Any,
) -> JobDetails:
    return job_details(
        outputs={"rows": schema},
        config={"path": str(path), "cursor": "number", **config},
        operator="replay",
        source=True,
        cursor="number",
        cursor_type=cursor_type,
        max_events_per_emit=max_events,
    )


def csv_of(path: Path, cursors: Sequence[object]) -> Path:
    path.write_text("number,text\n" + "".join(f"{cursor},row {at}\n" for at, cursor in enumerate(cursors)))
    return path


def handed_over(path: Path) -> dict[str, str]:
    """What the wrapper hands over for a file that may be read in place."""
    return {str(path): str(path)}


def replayed(path: Path, state: bytes = b"", **settings: Any) -> SourceResult:
    return run_source(Replay, job=job(path, **settings), state=state, local_paths=handed_over(path))


def firsts(result: SourceResult) -> list[object]:
    return [event.scope.first for event in result.events]


def test_rows_become_files_of_batches_and_an_event_per_cursor(tmp_path: Path) -> None:
    cursors = [1, 1, 2, 5, 5, 5, 6, 9]
    path = csv_of(tmp_path / "rows.csv", cursors)
    result = replayed(path, batch_rows=3)
    assert firsts(result) == [1, 2, 5, 6, 9]
    assert result.outputs["rows"]["number"].to_pylist() == cursors
    assert [[event.scope.cursor.int64_value for event in emit.events] for emit in result.emits] == [[1, 2], [5], [6, 9]]
    assert [emit.watermarks[0].cursor.int64_value for emit in result.emits] == [2, 5, 9]
    assert json.loads(result.state) == {"last": 9, "rows": 8, "events": 5}


def test_a_file_that_is_complete_further_on_moves_the_watermark_there(tmp_path: Path) -> None:
    path = csv_of(tmp_path / "rows.csv", [1, 4])
    assert replayed(path, until=20).watermarks == {"rows": 20}
    assert replayed(path, until="20").watermarks == {"rows": 20}
    assert replayed(path, until=3).watermarks == {"rows": 4}, "never below the last cursor"
    assert replayed(csv_of(tmp_path / "empty.csv", []), until=20).watermarks == {"rows": 20}
    assert replayed(path, until=20, limit=1).watermarks == {"rows": 1}, "it did not see the end"
    assert replayed(path, until=20, limit=2).watermarks == {"rows": 20}


def test_events_of_a_file_go_in_one_emit(tmp_path: Path) -> None:
    result = replayed(csv_of(tmp_path / "rows.csv", range(100)), max_events=7)
    assert firsts(result) == list(range(100))
    for emit in result.emits:
        assert len({event.output_id for event in emit.events}) == 1
    assert result.files == len(result.emits) == 15


def test_times_and_texts_are_cursors_too(tmp_path: Path) -> None:
    path = csv_of(tmp_path / "rows.csv", ["2020-01-01T00:00:00Z", "2020-01-01T00:00:01.5Z"])
    schema = {"number": "timestamp", "text": "string"}
    result = replayed(path, schema=schema, cursor_type="timestamp", until="2020-02-01T00:00:00Z", batch_rows=1)
    times = [datetime(2020, 1, 1, tzinfo=UTC), datetime(2020, 1, 1, 0, 0, 1, 500_000, tzinfo=UTC)]
    assert firsts(result) == times
    assert result.watermarks == {"rows": datetime(2020, 2, 1, tzinfo=UTC)}
    state = Position(1577836800_000000, 1, 1).to_state()
    resumed = replayed(path, state, schema=schema, cursor_type="timestamp")
    assert firsts(resumed) == times[1:]
    texts = csv_of(tmp_path / "texts.csv", ["Z", "a", "é"])
    schema = {"number": "string", "text": "string"}
    assert firsts(replayed(texts, schema=schema, cursor_type="string")) == ["Z", "a", "é"]


@pytest.mark.parametrize(
    ("cursors", "said"),
    [([1, 3, 2], "row 3: number 2 after 3"), ([1, 2, 1], "row 3: number 1 after 2"), ([1, ""], "row 2: .*null")],
)
def test_rows_out_of_order_are_named(tmp_path: Path, cursors: list[object], said: str) -> None:
    with pytest.raises(OperatorError, match=said):
        replayed(csv_of(tmp_path / "rows.csv", cursors))


def test_the_file_is_found_where_the_wrapper_unpacked_it(tmp_path: Path) -> None:
    csv_of(tmp_path / "rows.csv", [1])
    details = job("data/rows.csv")
    for place in (tmp_path, tmp_path / "rows.csv"):
        assert firsts(run_source(Replay, job=details, local_paths={"data/rows.csv": str(place)})) == [1]


def test_a_file_that_the_wrapper_did_not_hand_over_is_not_opened(tmp_path: Path) -> None:
    for path in ("data/rows.csv", csv_of(tmp_path / "rows.csv", [1])):
        with pytest.raises(OperatorError, match="the wrapper handed over no file"):
            run_source(Replay, job=job(path))


def test_a_setting_that_cannot_be_is_refused(tmp_path: Path) -> None:
    path = csv_of(tmp_path / "rows.csv", [1])
    with pytest.raises(OperatorError, match="'soon' is no cursor"):
        replayed(path, until="soon")
    with pytest.raises(OperatorError, match="`cursor` is 'text'"):
        replayed(path, cursor="text")


@settings(max_examples=300, deadline=None)
@given(
    rows=st.lists(st.integers(-20, 20), max_size=60).map(sorted),
    blocks=st.lists(st.integers(0, 60), max_size=6),
    cut=st.builds(Cut, st.integers(1, 20), st.integers(1, 9)),
    stop=st.integers(0, 8),
)
def test_portions_are_whole_and_the_same_when_resumed_anywhere(
    rows: list[int], blocks: list[int], cut: Cut, stop: int
) -> None:
    def batches() -> list[pa.RecordBatch]:
        table = pa.table({"number": pa.array(rows, pa.int64()), "row": pa.array(range(len(rows)), pa.int64())})
        borders = [0, *sorted({min(block, len(rows)) for block in blocks}), len(rows)]
        return [batch for start, end in pairwise(borders) for batch in table.slice(start, end - start).to_batches()]

    def contents(found: Sequence[Portion]) -> list[tuple[list[int], list[Any], bool]]:
        return [(one.cursors, one.table["row"].to_pylist() if one.cursors else [], one.complete) for one in found]

    whole = list(portions(batches(), "number", None, cut))
    assert list(chain(*(one.cursors for one in whole))) == sorted(set(rows))
    assert list(chain(*(numbers for _, numbers, _ in contents(whole)))) == list(range(len(rows)))
    assert [one.complete for one in whole] == [False] * (len(whole) - 1) + [True]
    for one in whole[:-1]:
        assert len(one.cursors) <= cut.events
        assert one.table.num_rows >= cut.rows or len(one.cursors) == cut.events
    stop = min(stop, len(whole) - 1)
    after = whole[stop - 1].cursors[-1] if stop else None
    assert contents(list(portions(batches(), "number", after, cut))) == contents(whole[stop:])


@given(limit=st.integers(0, 12), rows=st.lists(st.integers(0, 9), max_size=20).map(sorted))
def test_a_limit_counts_events_and_leaves_the_rest(limit: int, rows: list[int]) -> None:
    batch = pa.record_batch({"number": pa.array(rows, pa.int64())})
    found = list(portions([batch], "number", None, Cut(3, 2, limit)))
    assert list(chain(*(one.cursors for one in found))) == sorted(set(rows))[:limit]
    assert any(one.complete for one in found) == (limit >= len(set(rows)))


def test_a_rate_gives_each_portion_its_turn() -> None:
    waited: list[float] = []

    class Run:
        def wait(self, seconds: float) -> bool:
            waited.append(round(seconds, 3))
            return False

        def check_canceled(self) -> None:
            pass

    pace = Pace(Run(), 100.0, clock=lambda: 1000.0)
    for _ in range(3):
        pace.wait_for_turn(25)
    assert waited == [0.25, 0.5]


def test_a_run_at_a_rate_emits_steadily_and_stops_when_told(tmp_path: Path) -> None:
    path = csv_of(tmp_path / "rows.csv", range(100_000))
    with OperatorHarness(job(path, rate=40), local_paths=handed_over(path)) as harness:
        unit = harness.add_unit(operator_task())
        harness.start_host("wrapper.operators.replay:Replay")
        harness.wait_for(lambda: len(harness.record.emits) >= 2)
        harness.cancel(unit)
        assert harness.wait_finished(unit).WhichOneof("outcome") == "canceled"
        assert {len(emit.events) for emit in harness.record.emits} == {10}


def test_a_killed_process_is_followed_by_one_that_leaves_nothing_out_and_doubles_nothing(tmp_path: Path) -> None:
    rows = list(range(0, 30_000, 3))
    path = tmp_path / "rows.parquet.gz"
    pq.write_table(pa.table({"number": rows, "text": [str(number) for number in rows]}), tmp_path / "plain")
    path.write_bytes(gzip.compress((tmp_path / "plain").read_bytes()))

    def kill() -> ItemError:
        host.send_signal(signal.SIGKILL)
        return ItemError(reason=ErrorReason.ERROR_REASON_UNAVAILABLE)

    with OperatorHarness(job(path, max_events=500, until=40_000), local_paths=handed_over(path)) as harness:
        run = operator_task()
        harness.add_unit(run)
        harness.record.refuse = lambda _emit: kill() if len(harness.record.emits) == 3 else None
        host = harness.start_host("wrapper.operators.replay:Replay")
        assert host.wait(20) == -signal.SIGKILL
        assert len(harness.record.emits) == 3, "it was killed in the middle"
        harness.record.refuse = None
        again = operator_task(task_id=run.task_id, attempt=2)
        unit = harness.add_unit(again, state=harness.record.state)
        harness.start_host("wrapper.operators.replay:Replay")
        assert harness.wait_finished(unit).WhichOneof("outcome") == "succeeded", harness.wait_finished(unit)
        assert [scope.first for scope in harness.record.scopes("rows")] == rows
        assert harness.record.table("rows")["number"].to_pylist() == rows
        assert harness.record.watermarks == {"rows": 40_000}
        (progress,) = harness.record.progress.values()
        assert (progress.progress.done, progress.progress.total) == (10_000, 10_000)


def test_a_scope_of_a_file_is_the_range_of_its_cursors(tmp_path: Path) -> None:
    path = csv_of(tmp_path / "rows.csv", [3, 7])
    with OperatorHarness(job(path), local_paths=handed_over(path)) as harness:
        unit = harness.add_unit(operator_task())
        harness.start_host("wrapper.operators.replay:Replay")
        harness.wait_finished(unit)
        ((_, scope, _),) = harness.record.outputs.values()
        assert (scope.kind, scope.first, scope.last) == (Scope.between(3, 7).kind, 3, 7)
