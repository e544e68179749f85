"""`tracectl dag history`, and commands on a removed DAG, against a real dispatcher."""

from pathlib import Path

import pytest
from google.protobuf import json_format

from tests.dispatcher.builders import start_source
from tests.dispatcher.changing import CHANGED, PIPELINE, TUNED, deploy
from tests.dispatcher.commands import Run, command_line, words
from tests.dispatcher.in_process import InProcess
from traceapi.control.v1 import change_pb2


@pytest.fixture
def run(dispatcher: InProcess, tmp_path: Path) -> Run:
    return command_line(dispatcher, tmp_path)


async def _told(run: Run, *options: str) -> list[change_pb2.DagChange]:
    """In JSON, newest first."""
    printed = (await run("dag", "history", "chain", "--output", "json", *options)).stdout
    return list(json_format.Parse(printed, change_pb2.ListDagChangesResponse()).changes)


async def test_a_history_tells_who_did_what_from_where_to_where(
    dispatcher: InProcess, run: Run, tmp_path: Path
) -> None:
    file = tmp_path / "dag.yaml"
    for document in (PIPELINE, TUNED):
        file.write_text(document)
        assert (await run("dag", "deploy", str(file), "--yes")).exit_code == 0
    assert (await run("dag", "rollback", "chain", "--yes")).exit_code == 0
    await (await start_source(dispatcher)).publish([1, 2, 3])
    await deploy(dispatcher, CHANGED, hold=True)
    assert (await run("dag", "cutover", "chain")).exit_code == 1, "it has not caught up"
    assert (await run("dag", "abort", "chain")).exit_code == 0
    assert (await run("dag", "pause", "chain", "copies")).exit_code == 0
    told = await _told(run)
    assert [(words(change)) for change in reversed(told)] == [
        ("plan", 0, 0),
        ("deploy", 0, 1),
        ("plan", 1, 0),
        ("deploy", 1, 2),
        ("roll_back", 2, 1),
        ("deploy", 1, 3),
        ("cut_over", 0, 3),
        ("abort", 3, 0),
        ("pause", 0, 0),
    ]
    assert {change.actor.split(":")[0] for change in told} == {"user"}
    first_plan = told[-1].plan_id
    assert (told[-2].plan_id, told[-5].plan_id) == (first_plan, first_plan), "what came back was deployed by it"
    shown = (await run("dag", "history", "chain")).stdout
    for part in ("rollback", "refused: NOT_CAUGHT_UP", first_plan, "jobs copies"):
        assert part in shown
    assert len(await _told(run, "-n", "2")) == 2


@pytest.mark.parametrize(
    "command", ["show", "watch", "cutover", "abort", "rollback --yes", "rm --yes", "pause", "resume"]
)
async def test_a_command_on_a_removed_dag_says_that_it_was_removed(
    dispatcher: InProcess, run: Run, command: str
) -> None:
    await dispatcher.deploy(PIPELINE)
    assert (await run("dag", "rm", "chain", "--yes")).exit_code == 0
    name, *options = command.split()
    told = await run("dag", name, "chain", *options)
    assert told.exit_code == 1
    words = " ".join(told.stderr.split())
    assert "chain was removed on " in words
    assert " UTC by user:" in words
    assert "deploy its document again: tracectl dag deploy FILE" in words
    assert "did you mean" not in words
