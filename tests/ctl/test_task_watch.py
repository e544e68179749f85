"""`tracectl task show --watch`: each change once, until the task ends."""

import io
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from ctl.connection import Connection, connect
from ctl.render.console import THEME
from ctl.task_watch import follow_task
from tests.ctl.canned import Canned, task_id
from tests.ctl.conftest import Run
from traceapi.types.v1 import task_pb2

WATCHED = task_id(7)


def look(state: str, *, attempt: int = 1, done: int = 0, lease: int = 0, reason: str = "") -> task_pb2.Task:
    task = task_pb2.Task(
        task_id=WATCHED,
        dag="ethereum",
        job="checked",
        state=task_pb2.TaskState.Value(f"TASK_STATE_{state.upper()}"),
        attempt=attempt,
        reason=reason,
    )
    if done:
        task.progress.CopyFrom(task_pb2.Progress(done=done, total=1000, unit="rows"))
    if lease:
        task.lease_until_time.FromSeconds(lease)
    return task


LIFE = [
    look("queued", attempt=0),
    look("running", lease=1),
    look("running", lease=2),
    look("running", done=500, lease=3),
    look("succeeded"),
]


def test_a_line_for_each_change_then_the_rest(run: Run, canned: Canned) -> None:
    canned.task_looks = [*LIFE]
    result = run("task", "show", WATCHED, "--watch")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.splitlines()[:4] == [
        "queued · no attempt yet · another task of its stream comes first",
        "running · attempt 1",
        "running · attempt 1 · 500 of 1,000 rows",
        "succeeded · attempt 1",
    ]
    assert "Attempts" in result.stdout


def test_a_message_for_each_change(run: Run, canned: Canned) -> None:
    canned.task_looks = [*LIFE]
    result = run("task", "show", WATCHED, "--watch", "--output", "json")
    assert result.exit_code == 0, result.stderr
    seen = [json.loads(line)["task"] for line in result.stdout.splitlines()]
    assert [task["state"].removeprefix("TASK_STATE_") for task in seen] == ["QUEUED", "RUNNING", "RUNNING", "SUCCEEDED"]
    assert seen[2]["progress"] == {"done": "500", "total": "1000", "unit": "rows"}


def test_a_task_that_ends_as_dead_is_a_failure(run: Run, canned: Canned) -> None:
    canned.task_looks = [look("running"), look("dead", reason="3 attempts failed")]
    result = run("task", "show", WATCHED, "--watch")
    assert result.exit_code == 1
    assert "dead · attempt 1 · 3 attempts failed" in result.stdout


def test_a_dispatcher_that_restarts_is_waited_for(run: Run, canned: Canned) -> None:
    canned.task_looks = [look("running"), None, look("succeeded")]
    result = run("task", "show", WATCHED, "--watch")
    assert result.exit_code == 0, result.stderr
    assert "succeeded" in result.stdout


def test_a_task_that_does_not_exist_is_said_at_once(run: Run, canned: Canned) -> None:
    result = run("task", "show", task_id(999_999), "--watch")
    assert result.exit_code == 1
    assert "no task" in result.stderr


def test_an_interrupt_ends_it_in_order(canned: Canned, tmp_path: Path) -> None:
    canned.task_looks = [look("running")] * 10_000
    command = [sys.executable, "-m", "ctl", "task", "show", WATCHED, "--watch", "--home", str(tmp_path / "home")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "running · attempt 1\n"
        process.send_signal(signal.SIGINT)
        _, complaint = process.communicate(timeout=20)
    assert (process.returncode, complaint.strip()) == (130, "")


@pytest.fixture
def connection(canned: Canned, tmp_path: Path) -> Iterator[Connection]:
    with connect(tmp_path / "home") as made:
        yield made


def test_on_a_terminal_it_is_a_picture_that_goes_when_it_ends(connection: Connection, canned: Canned) -> None:
    canned.task_looks = [*LIFE]
    screen = io.StringIO()
    console = Console(file=screen, theme=THEME, force_terminal=True, width=100, highlight=False)
    assert follow_task(connection, WATCHED, console).task.state == task_pb2.TASK_STATE_SUCCEEDED
    drawn = screen.getvalue()
    assert "500 of 1,000 rows" in drawn
    assert "another task of its stream comes first" in drawn
    assert "\x1b[2K" in drawn  # lines are taken back
