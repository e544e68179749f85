"""An operator that raises, from the document to what a person reads of it: retried, then DEAD, with its traceback."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from google.protobuf import json_format

from tests.acceptance.conftest import RunningStack
from traceapi.control.v1 import task_service_pb2 as tasks
from traceapi.types.v1 import task_pb2

pytestmark = pytest.mark.acceptance

ATTEMPTS = 3

DOCUMENT = f"""
dag: halves
defaults: {{execution: {{max_attempts: {ATTEMPTS}, retry_backoff: 0.05s, max_retry_backoff: 0.1s}}}}
jobs:
  numbers:
    source: replay
    config: {{path: numbers.csv, cursor: number}}
    outputs:
      h.numbers: {{cursor: {{column: number, type: int64}}, schema: {{number: int64}}}}
  halves:
    operator: python
    runtime: python3.11
    code: {{bundle: ./operators, entrypoint: "halves:halve"}}
    inputs: {{h.numbers: {{}}}}
    outputs:
      h.halves: {{schema: {{number: int64, half: int64}}}}
"""

OPERATOR = """\
import pyarrow as pa

from tracesdk import Task


def halve(task: Task) -> pa.Table:
    numbers = task.read("h.numbers")["number"].to_pylist()
    return pa.table({"number": numbers, "half": [half_of(number) for number in numbers]})


def half_of(number: int) -> int:
    if number % 2:
        raise ArithmeticError(f"{number} has no half")
    return number // 2
"""


@pytest.fixture
def document(tmp_path: Path) -> Path:
    folder = tmp_path / "halves"
    (folder / "operators").mkdir(parents=True)
    (folder / "operators" / "halves.py").write_text(OPERATOR)
    (folder / "numbers.csv").write_text("number\n2\n3\n4\n")
    (folder / "dag.yaml").write_text(DOCUMENT)
    return folder / "dag.yaml"


def line_of(text: str) -> int:
    return 1 + next(number for number, line in enumerate(OPERATOR.splitlines()) if text in line)


def test_an_operator_that_raises_ends_as_a_dead_task_whose_traceback_is_shown(
    start_stack: Callable[..., RunningStack], document: Path
) -> None:
    stack = start_stack()
    deployed = stack.tracectl("dag", "deploy", str(document), "--wait")
    assert deployed.returncode == 1, deployed.stderr + stack.logs()
    assert "1 task is DEAD" in deployed.stderr
    assert "tracectl task ls --dag halves --state dead" in deployed.stderr

    listed = stack.tracectl("task", "ls", "--dag", "halves", "--job", "halves", "--output", "json")
    states = {task["scope"]["cursor"]["int64Value"]: task["state"] for task in json.loads(listed.stdout)["tasks"]}
    assert states == {"2": "TASK_STATE_SUCCEEDED", "3": "TASK_STATE_DEAD", "4": "TASK_STATE_SUCCEEDED"}
    dead = json.loads(stack.tracectl("task", "ls", "--state", "dead", "--output", "json").stdout)["tasks"]
    (task_id,) = [task["taskId"] for task in dead]

    shown = stack.tracectl("task", "show", task_id)
    assert shown.returncode == 0, shown.stderr
    lines = shown.stdout.splitlines()
    assert ["state", "dead"] in [line.split() for line in lines]
    assert [line.split()[:2] for line in lines if " failed " in line and line.split()[0].isdigit()] == [
        [str(attempt), "failed"] for attempt in range(1, ATTEMPTS + 1)
    ]
    for traced in (
        f'  File "halves.py", line {line_of("return pa.table")}, in halve',
        f'  File "halves.py", line {line_of("raise ArithmeticError")}, in half_of',
        "ArithmeticError: 3 has no half",
    ):
        assert [line.rstrip() for line in lines].count(traced) == ATTEMPTS, shown.stdout

    answer = json_format.Parse(
        stack.tracectl("task", "show", task_id, "--output", "json").stdout, tasks.GetTaskResponse()
    )
    assert (answer.task.state, answer.task.failed_attempts) == (task_pb2.TASK_STATE_DEAD, ATTEMPTS)
    assert [attempt.attempt for attempt in answer.attempts] == list(range(1, ATTEMPTS + 1))
    for attempt in answer.attempts:
        assert attempt.outcome == task_pb2.ATTEMPT_OUTCOME_FAILED
        assert attempt.failure.error_class == task_pb2.ERROR_CLASS_USER
        assert "ArithmeticError: 3 has no half" in attempt.failure.traceback
    assert not answer.events
