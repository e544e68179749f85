"""Each command against services with canned data: what is printed, what is asked, and with which code it ends."""

import json
from pathlib import Path

import pytest
from google.protobuf import json_format
from google.protobuf.message import Message

from ctl.main import app
from tests.ctl.canned import DEAD_TASK, TASK_COUNT, Canned, int64, watch_state
from tests.ctl.conftest import Run
from traceapi.control.v1 import dag_service_pb2, dataset_service_pb2, queue_service_pb2, task_service_pb2
from traceapi.types.v1 import scope_pb2, task_pb2


def test_deploy_uploads_the_paths_and_hands_over_their_digests(run: Run, canned: Canned, document: Path) -> None:
    folder = document.parent / "operators"
    folder.mkdir()
    (folder / "checks.py").write_text("def links(): ...\n" * 100_000)  # more than one part
    (document.parent / "rows.csv").write_text("number\n1\n")
    canned.local_paths = [
        dag_service_pb2.LocalPath(path="operators", job="checked"),
        dag_service_pb2.LocalPath(path="rows.csv", job="blocks", file=True),
    ]
    result = run("dag", "deploy", str(document))
    assert result.exit_code == 0, result.stderr
    sent = canned.asked(dag_service_pb2.PlanDagRequest)
    assert canned.asked(dag_service_pb2.DeployDagRequest).WhichOneof("source") == "plan_id"
    assert set(sent.bundles) == {"operators", "rows.csv"}
    assert set(sent.bundles.values()) == set(canned.bundles)


def test_deploy_prints_problems_and_deploys_nothing(run: Run, canned: Canned, document: Path) -> None:
    canned.problems = [dag_service_pb2.DagProblem(file_name=str(document), line=1, column=1, message="bad name")]
    result = run("dag", "deploy", str(document), "--output", "json")
    assert result.exit_code == 1
    assert "bad name" in result.stderr
    assert result.stdout == ""
    assert not any(isinstance(request, dag_service_pb2.DeployDagRequest) for request in canned.requests)


def test_deploy_waits_until_settled(run: Run, canned: Canned, document: Path) -> None:
    canned.watched = [watch_state(queued=10), watch_state(succeeded=10, settled=True)]
    result = run("dag", "deploy", str(document), "--wait")
    assert result.exit_code == 0, result.stderr
    assert "checked 10/10" in result.stdout


def test_deploy_waits_through_a_restart_of_the_dispatcher(run: Run, canned: Canned, document: Path) -> None:
    canned.watched = [watch_state(queued=10), watch_state(succeeded=10, settled=True)]
    canned.watch_failures = 1
    assert run("dag", "deploy", str(document), "--wait").exit_code == 0


def test_deploy_fails_when_a_task_is_dead(run: Run, canned: Canned, document: Path) -> None:
    canned.watched = [watch_state(succeeded=9, dead=1, settled=True)]
    result = run("dag", "deploy", str(document), "--wait", "--output", "json")
    assert result.exit_code == 1
    assert "1 task is DEAD" in result.stderr
    assert "--state dead" in result.stderr
    parsed = json_format.Parse(result.stdout, dag_service_pb2.WatchDeploymentResponse())
    assert parsed == canned.watched[-1]


def test_show_draws_every_job_and_dataset(run: Run, canned: Canned) -> None:
    result = run("dag", "show", "ethereum")
    assert result.exit_code == 0
    for name in ("blocks  replay", "ranges  aggregator", "▸ eth.checked", "miners  virtual", "2 dead"):
        assert name in result.stdout
    assert "▼" in result.stdout


def test_an_unknown_dag_names_what_to_do(run: Run, canned: Canned) -> None:
    result = run("dag", "show", "none")
    assert result.exit_code == 1
    assert "no DAG is called 'none'" in result.stderr
    assert "tracectl dag ls" in result.stderr
    assert "Traceback" not in result.stderr


def test_task_ls_pages_until_the_limit(run: Run, canned: Canned) -> None:
    some = run("task", "ls", "--limit", "7", "--output", "json")
    assert len(json.loads(some.stdout)["tasks"]) == 7
    everything = run("task", "ls", "--limit", "0", "--output", "json")
    assert len(json.loads(everything.stdout)["tasks"]) == TASK_COUNT
    table = run("task", "ls", "--limit", "7")
    assert "7 shown, there are more tasks" in table.stderr
    assert "511900..511999" in table.stdout


def test_task_ls_filters(run: Run, canned: Canned) -> None:
    result = run("task", "ls", "--job", "checked", "--state", "dead", "--scope", "500000..500099", "--output", "json")
    assert result.exit_code == 0
    sent = canned.asked(task_service_pb2.ListTasksRequest).filter
    assert (sent.job, list(sent.states)) == ("checked", [task_pb2.TASK_STATE_DEAD])
    assert sent.scope.range == scope_pb2.CursorRange(first=int64(500_000), last=int64(500_099))
    assert [task["taskId"] for task in json.loads(result.stdout)["tasks"]] == [DEAD_TASK]


def test_an_unknown_state_names_those_that_there_are(run: Run, canned: Canned) -> None:
    result = run("task", "ls", "--state", "finished")
    assert result.exit_code == 2
    assert "succeeded" in result.stderr


def test_task_show_prints_the_traceback(run: Run, canned: Canned) -> None:
    result = run("task", "show", DEAD_TASK)
    assert result.exit_code == 0
    assert "ValueError: broken link" in result.stdout
    assert 'File "checks.py", line 7, in links' in result.stdout
    assert "out of attempts" in result.stdout


def test_task_show_says_how_many_attempts_it_leaves_out(run: Run, canned: Canned) -> None:
    assert "not shown" not in run("task", "show", DEAD_TASK).stdout
    canned.earlier_attempts = 1901
    assert "1,901 earlier, not shown" in run("task", "show", DEAD_TASK).stdout


@pytest.mark.parametrize(
    "command",
    [
        "dag ls",
        "task ls",
        f"task show {DEAD_TASK}",
        "event ls",
        "dataset ls",
        "dataset show eth.blocks",
        "queue ls",
        "status",
    ],
)
def test_nothing_is_cut_to_pieces_on_a_narrow_terminal(
    run: Run, canned: Canned, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    def words(width: str) -> set[str]:
        monkeypatch.setenv("COLUMNS", width)
        said = run(*command.split())
        assert said.exit_code == 0, said.stderr
        assert max(map(len, said.stdout.splitlines())) <= int(width)
        return {word for word in said.stdout.split() if word.isalpha()}

    assert words("200") <= words("40")


def test_event_ls_shows_scopes_and_members(run: Run, canned: Canned) -> None:
    result = run("event", "ls", "--dataset", "eth.blocks", "--scope", "500000")
    assert "500000..500099: 100 units in 1 run" in result.stdout
    assert canned.asked(dataset_service_pb2.ListEventsRequest).scope.cursor == int64(500_000)


def test_dataset_ls_and_show(run: Run, canned: Canned) -> None:
    listed = run("dataset", "ls")
    assert "501000" in listed.stdout
    assert "virtual" in listed.stdout
    shown = run("dataset", "show", "eth.blocks")
    assert "miner" in shown.stdout
    assert "146.5 KiB" in shown.stdout
    assert "built it on a version of other.raw that is no longer served, and passed 1,204 scopes by" in shown.stdout
    assert "group by all" in run("dataset", "show", "eth.miners").stdout


def test_status_shows_programs_worker_and_counts(run: Run, canned: Canned) -> None:
    result = run("status")
    assert result.exit_code == 0, result.stderr
    for word in ("dispatcher", "queryd", "wrapper", "serving", "bubblewrap", "10 succeeded"):
        assert word in result.stdout
    document = json.loads(run("status", "--output", "json").stdout)
    assert document["taskCounts"]["counts"][0]["count"] == "10"
    assert all(program["answers"] for program in document["programs"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("dag", "ls"), dag_service_pb2.ListDagsResponse()),
        (("dag", "show", "ethereum"), dag_service_pb2.GetDagResponse()),
        (("task", "ls"), task_service_pb2.ListTasksResponse()),
        (("task", "show", DEAD_TASK), task_service_pb2.GetTaskResponse()),
        (("event", "ls"), dataset_service_pb2.ListEventsResponse()),
        (("dataset", "ls"), dataset_service_pb2.ListDatasetsResponse()),
        (("dataset", "show", "eth.blocks"), dataset_service_pb2.GetDatasetResponse()),
        (("queue", "ls"), queue_service_pb2.ListQueuesResponse()),
        (("queue", "set", "default", "--window", "9"), queue_service_pb2.SetQueueResponse()),
    ],
)
def test_json_is_the_contracts_and_nothing_else(
    run: Run, canned: Canned, arguments: tuple[str, ...], message: Message
) -> None:
    result = run(*arguments, "--output", "json")
    assert result.exit_code == 0, result.stderr
    assert json_format.Parse(result.stdout, message).ByteSize() > 0
    assert result.stderr == ""


def test_the_callers_name_travels_with_the_call(run: Run, canned: Canned) -> None:
    run("dag", "ls")
    assert canned.actors[-1]


def test_without_a_stack_it_says_how_to_start_one(run: Run, tmp_path: Path) -> None:
    result = run("task", "ls", "--home", str(tmp_path / "nowhere"))
    assert result.exit_code == 3
    assert f"no stack runs on {tmp_path}/nowhere" in result.stderr.replace("\n", "")
    assert "tracectl up --home" in result.stderr


def test_a_dead_stack_is_unreachable_not_faulty(run: Run, tmp_path: Path, canned: Canned) -> None:
    home = tmp_path / "home"
    text = (home / "endpoints.json").read_text()
    address = json.loads(text)["control"]
    (home / "endpoints.json").write_text(text.replace(address, "127.0.0.1:1"))
    result = run("status")
    assert result.exit_code == 3
    assert "no answer from dispatcher, queryd, wrapper" in result.stderr


def test_a_wrong_credential_is_refused(run: Run, canned: Canned) -> None:
    canned.token = "another"
    result = run("task", "ls")
    assert result.exit_code == 3
    assert "as the user who started it" in result.stderr


def test_a_credential_that_others_can_read_is_not_used(run: Run, tmp_path: Path, canned: Canned) -> None:
    (tmp_path / "home" / "credentials" / "user.token").chmod(0o644)
    result = run("task", "ls")
    assert result.exit_code == 3
    assert "chmod 600" in result.stderr


def test_an_unknown_command_is_a_usage_error(run: Run) -> None:
    assert run("dags").exit_code == 2
    assert app.info.name == "tracectl"
