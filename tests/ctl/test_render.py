"""Pictures, progress and values: from messages to what a person sees, without any program."""

import io
import itertools

import pytest
from google.protobuf import json_format
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from rich.text import Text

from ctl.render import graph, layers, values
from ctl.render.console import THEME
from ctl.render.layers import Edge
from ctl.render.progress import DeploymentProgress
from tests.ctl.canned import SPEC, int64_range, watch_state
from traceapi.control.v1.deployment_pb2 import TaskCount
from traceapi.types.v1 import dag_pb2, task_pb2


def drawn(what: object, width: int = 120, *, color: bool = False) -> str:
    console = Console(file=io.StringIO(), width=width, theme=THEME, force_terminal=color, highlight=False)
    console.print(what)
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def spec() -> dag_pb2.DagSpec:
    return json_format.ParseDict(SPEC, dag_pb2.DagSpec())


def test_edges_follow_datasets_and_know_what_triggers() -> None:
    assert set(layers.edges_of(spec())) == {
        Edge("blocks", "ranges", True),
        Edge("blocks", "checked", False),
        Edge("ranges", "checked", True),
        Edge("blocks", "miners", False),
    }


def test_a_picture_holds_every_job_below_what_it_reads() -> None:
    lines = drawn(graph.draw(spec(), 120, {"checked": [Text("8 succeeded")]})).splitlines()
    row = {job: next(number for number, line in enumerate(lines) if f"│ {job}  " in line) for job in SPEC["jobs"]}
    for edge in layers.edges_of(spec()):
        assert row[edge.source] < row[edge.target]
    assert any("8 succeeded" in line for line in lines)


def test_a_picture_that_does_not_fit_becomes_a_list() -> None:
    text = drawn(graph.draw(spec(), 30), width=30)
    assert "╭" not in text
    for name in ("blocks", "ranges", "checked", "miners", "◂ eth.block_ranges", "◃ eth.blocks"):
        assert name in text


_JOBS = [f"job{number}" for number in range(7)]


@given(st.sets(st.sampled_from(list(itertools.combinations(_JOBS, 2)))))
def test_any_graph_is_drawn_with_all_its_boxes_inside_the_width(pairs: set[tuple[str, str]]) -> None:
    jobs = {
        name: {
            "operator": "sql",
            "inputs": {source: {} for source, target in pairs if target == name},
            "outputs": {name: {}},
        }
        for name in _JOBS
    }
    made = json_format.ParseDict({"dag": "any", "jobs": jobs}, dag_pb2.DagSpec())
    layer = layers.layers_of(_JOBS, layers.edges_of(made))
    assert all(layer[source] < layer[target] for source, target in pairs)
    text = drawn(graph.draw(made, 400), width=400)
    assert all(f"│ {name}  sql" in text for name in _JOBS)
    arrows = sum(line.count("▼") for line in text.splitlines())
    assert arrows == len({target for _, target in pairs})


def test_progress_counts_rates_and_time_left() -> None:
    progress = DeploymentProgress()
    progress.update(watch_state(queued=90, succeeded=10), now=100.0)
    progress.update(watch_state(queued=60, running=10, succeeded=30), now=102.0)
    assert progress.jobs()["checked"].running == 10
    assert progress.time_left("checked") == pytest.approx(7.0)  # 70 tasks at 10 a second
    text = drawn(progress)
    assert "30/100" in text
    assert "10/s" in text
    assert "7.0 s left" in text
    assert "1,001 source events" in text


def test_progress_is_stuck_only_behind_the_dead_when_nothing_moves() -> None:
    progress = DeploymentProgress()
    progress.update(watch_state(queued=5, dead=1, running=1), now=0.0)
    progress.tick(60.0)
    assert not progress.is_stuck(5.0)  # something is in hand
    progress.update(watch_state(queued=5, dead=1), now=60.0)
    progress.tick(64.0)
    assert not progress.is_stuck(5.0)
    progress.tick(65.0)
    assert progress.is_stuck(5.0)
    waiting = DeploymentProgress()
    waiting.update(watch_state(queued=5), now=0.0)
    waiting.tick(600.0)
    assert not waiting.is_stuck(5.0)  # nothing is DEAD: it waits for something


def test_progress_knows_for_how_long_nothing_has_changed() -> None:
    progress = DeploymentProgress()
    progress.tick(1000.0)  # no state yet: waiting counts from the first look
    assert progress.quiet_seconds() == 0
    progress.tick(1007.0)
    assert progress.quiet_seconds() == 7
    progress.update(watch_state(queued=5), now=1008.0)
    progress.update(watch_state(queued=5), now=1010.0)
    assert progress.quiet_seconds() == 2


def test_progress_lists_jobs_as_data_flows() -> None:
    progress = DeploymentProgress(layers.in_order(spec()))
    progress.update(watch_state(queued=5), now=0.0)
    assert list(progress.jobs()) == ["blocks", "ranges", "checked"]


def test_states_have_colours_that_mean_something(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = [
        TaskCount(state=task_pb2.TASK_STATE_DEAD, count=1),
        TaskCount(state=task_pb2.TASK_STATE_SUCCEEDED, count=2),
    ]
    monkeypatch.delenv("NO_COLOR", raising=False)
    coloured = drawn(values.task_counts(counts), color=True)
    assert "\x1b[1;31mdead" in coloured.replace("1;31m1 \x1b[0m\x1b[", "")
    monkeypatch.setenv("NO_COLOR", "1")
    plain = drawn(values.task_counts(counts), color=True)
    assert "31m" not in plain
    assert "1 dead" in Text.from_ansi(plain).plain


def test_scopes_as_people_write_and_read_them() -> None:
    assert values.scope(int64_range(500_000, 500_099)) == "500000..500099"
    again = int64_range(1, 2)
    again.revision = 3
    assert values.scope(again) == "1..2 (revision 3)"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.0123, "12 ms"), (3.44, "3.4 s"), (125, "2 min 05 s"), (3840, "1 h 04 min")]
)
def test_durations(seconds: float, text: str) -> None:
    assert values.duration(seconds) == text


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (1_500_000, "1.4 MiB"), (1 << 60, "1024.0 PiB")]
)
def test_sizes(size: int, text: str) -> None:
    assert values.byte_size(size) == text
