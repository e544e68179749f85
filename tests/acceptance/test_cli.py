"""The command line against a real stack, and the demo as a newcomer runs it: once, twice, and interrupted."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from google.protobuf import json_format
from google.protobuf.message import Message

from ctl.home import Home
from ctl.local.launch import stop_stack
from ctl.local.ownership import read_processes
from ctl.local.processes import ProcessIdentity, wait_until_gone
from tests.acceptance.conftest import EXAMPLE, ROOT, RunningStack, tracectl
from traceapi.control.v1 import dag_service_pb2, dataset_service_pb2, task_service_pb2
from traceapi.types.v1 import task_pb2

pytestmark = pytest.mark.acceptance


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("dag", "ls"), dag_service_pb2.ListDagsResponse()),
        (("dag", "show", "ethereum"), dag_service_pb2.GetDagResponse()),
        (("dag", "validate", str(EXAMPLE)), dag_service_pb2.ValidateDagResponse()),
        (("task", "ls", "--job", "checked"), task_service_pb2.ListTasksResponse()),
        (("event", "ls", "--dataset", "eth.block_ranges"), dataset_service_pb2.ListEventsResponse()),
        (("dataset", "ls"), dataset_service_pb2.ListDatasetsResponse()),
        (("dataset", "show", "eth.blocks"), dataset_service_pb2.GetDatasetResponse()),
    ],
)
def test_each_command_answers_the_contracts_json(
    stack: RunningStack, arguments: tuple[str, ...], message: Message
) -> None:
    result = stack.tracectl(*arguments, "--output", "json")
    assert result.returncode == 0, result.stderr
    assert json_format.Parse(result.stdout, message).ByteSize() > 0
    table = stack.tracectl(*arguments)
    assert table.returncode == 0, table.stderr
    assert table.stdout.strip()


def test_task_show_of_a_real_task(stack: RunningStack) -> None:
    listed = json.loads(stack.tracectl("task", "ls", "--job", "checked", "--limit", "1", "--output", "json").stdout)
    task_id = listed["tasks"][0]["taskId"]
    shown = stack.tracectl("task", "show", task_id, "--output", "json")
    parsed = json_format.Parse(shown.stdout, task_service_pb2.GetTaskResponse())
    assert parsed.task.state == task_pb2.TASK_STATE_SUCCEEDED
    assert parsed.attempts
    assert parsed.events
    assert "succeeded" in stack.tracectl("task", "show", task_id).stdout


def test_filters_reach_the_stack(stack: RunningStack) -> None:
    one = json.loads(
        stack.tracectl("event", "ls", "--dataset", "eth.blocks", "--scope", "500010..500019", "-o", "json").stdout
    )
    assert sorted(event["scope"]["cursor"]["int64Value"] for event in one["events"]) == [
        str(number) for number in range(500_010, 500_020)
    ]
    none = stack.tracectl("task", "ls", "--state", "dead")
    assert "no tasks" in none.stderr


def test_an_unknown_task_is_named(stack: RunningStack) -> None:
    unknown = stack.tracectl("task", "show", "0198c0de-0000-7000-8000-000000000001")
    assert unknown.returncode == 1
    assert "0198c0de-0000-7000-8000-000000000001" in unknown.stderr
    assert stack.tracectl("task", "show", "no-uuid").returncode == 2


def test_status_of_a_running_stack(stack: RunningStack) -> None:
    result = stack.tracectl("status", "--output", "json")
    assert result.returncode == 0, result.stderr
    document = json.loads(result.stdout)
    assert [worker["phase"] for worker in document["workers"]] == ["WORKER_PHASE_SERVING"]
    assert all(program["answers"] for program in document["programs"])


def test_queries_in_every_form(stack: RunningStack) -> None:
    sql = 'select number, total_difficulty from "eth.blocks" order by number limit 2'
    lines = stack.tracectl("query", sql, "--output", "json").stdout.splitlines()
    assert [json.loads(line) for line in lines] == [
        {"number": 500_000, "total_difficulty": "2693928334782753024"},
        {"number": 500_001, "total_difficulty": "2693935876287706651"},
    ]
    csv = stack.tracectl("query", "-", "--output", "csv", stdin=sql).stdout
    assert csv == "number,total_difficulty\n500000,2693928334782753024\n500001,2693935876287706651\n"
    assert "read at deploy" in stack.tracectl("query", sql).stdout


def test_a_wrong_query_names_the_fault(stack: RunningStack) -> None:
    result = stack.tracectl("query", 'select nonsense from "eth.blocks"')
    assert result.returncode == 1
    assert "nonsense" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_faulty_document_answers_all_its_problems(stack: RunningStack, tmp_path: Path) -> None:
    file = tmp_path / "dag.yaml"
    file.write_text(
        "dag: faulty\n"
        "jobs:\n"
        "  ranges:\n"
        "    operator: aggregator\n"
        "    config: {size: 100, sise: 3}\n"
        "    inputs: {eth.blocks: {}}\n"
        "    outputs: {eth.more_ranges: {storage: none}}\n"
        "    exection: {max_attempts: 3}\n"
        "  more:\n"
        "    source: replay\n"
        "    config: {path: nowhere.csv, cursor: number}\n"
        "    outputs: {eth.more: {cursor: {column: number, type: int64}}}\n"
    )
    result = stack.tracectl("dag", "validate", str(file))
    assert result.returncode == 1
    for place, remedy in (("5:25", "`size`"), ("8:5", "`execution`"), ("11:20", "relative to its own folder")):
        assert f"{file}:{place}: " in result.stdout
        assert remedy in result.stdout
    assert result.stdout.count("▲") == 3
    assert "3 problems" in result.stdout
    answer = json_format.Parse(
        stack.tracectl("dag", "validate", str(file), "-o", "json").stdout, dag_service_pb2.ValidateDagResponse()
    )
    assert [(problem.line, problem.column) for problem in answer.problems] == [(5, 25), (8, 5), (11, 20)]
    deployed = stack.tracectl("dag", "deploy", str(file))
    assert deployed.returncode == 1
    assert "3 problems" in deployed.stderr
    assert "was not deployed" in deployed.stderr


def test_the_same_document_again_changes_nothing(stack: RunningStack) -> None:
    result = stack.tracectl("dag", "deploy", str(EXAMPLE), "--wait")
    assert result.returncode == 0, result.stderr
    assert "is active already" in result.stdout


def test_a_second_up_on_the_home_is_refused(stack: RunningStack) -> None:
    result = stack.tracectl("up", "--detach", "--port", "0")
    assert result.returncode == 1
    assert str(stack.endpoints.pids["supervisor"]) in result.stderr
    assert stack.tracectl("status").returncode == 0


def test_up_and_down_with_the_real_programs(tmp_path: Path) -> None:
    home = Home.at(tmp_path / "a home")
    try:
        up = tracectl("up", "--detach", "--port", "0", "--output", "json", home=home.root)
        assert up.returncode == 0, up.stderr
        assert json.loads(up.stdout)["control"].startswith("127.0.0.1:")
        started = read_processes(home)
        assert tracectl("down", home=home.root).returncode == 0
        assert not any(identity.is_alive() for identity in started.values())
        assert tracectl("down", home=home.root).returncode == 0
    finally:
        stop_stack(home, lambda line: None)


class Demo:
    """Runs `make demo` on a home of the test, in a process group as a shell would give it."""

    def __init__(self, home: Home) -> None:
        self.home = home

    def start(self, **environment: str) -> "subprocess.Popen[str]":
        clean = {name: value for name, value in os.environ.items() if name != "KEEP" and not name.startswith("MAKE")}
        return subprocess.Popen(
            ["make", "demo", f"ARGS=--home '{self.home.root}'"],
            env={**clean, "COLUMNS": "120", **environment},
            start_new_session=True,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, **environment: str) -> tuple[int, str]:
        with self.start(**environment) as process:
            said, _ = process.communicate(timeout=110)
            return process.returncode, said

    def living(self, known: dict[str, ProcessIdentity]) -> list[str]:
        return [name for name, identity in {**known, **read_processes(self.home)}.items() if identity.is_alive()]


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Demo]:
    made = Demo(Home.at(tmp_path / "demo"))
    yield made
    stop_stack(made.home, lambda line: None)


@pytest.mark.timeout(240)
def test_the_demo_works_twice_once_kept_and_once_stopped(demo: Demo) -> None:
    began = time.monotonic()
    status, said = demo.run(KEEP="1")
    assert status == 0, said
    assert time.monotonic() - began < 60
    for sentence in ("0 broken links", "to the last unit", "eth.gas_by_miner", "It still runs"):
        assert sentence in " ".join(said.split()), said
    assert tracectl("status", home=demo.home.root).returncode == 0
    first = dict(read_processes(demo.home))

    status, said = demo.run()  # takes the running one over: stops it and begins anew
    assert status == 0, said
    assert "Try next" in said
    assert demo.living(first) == []
    assert not demo.home.endpoints_file.exists()


@pytest.mark.parametrize("moment", ["postgres runs", "Deploying", "Every block becomes an event", "Stopping"])
def test_ctrl_c_leaves_nothing_that_hinders_the_next_run(demo: Demo, moment: str) -> None:
    with demo.start() as process:
        assert process.stdout is not None
        for line in process.stdout:
            if moment in line:
                break
        known = dict(read_processes(demo.home))
        os.killpg(process.pid, signal.SIGINT)
        said = process.stdout.read()
        assert process.wait(60) != 0, said
    assert "Traceback" not in said
    assert "interrupted; everything is stopped" in said
    assert demo.living(known) == []
    again = tracectl("up", "--detach", "--port", "0", home=demo.home.root)
    assert again.returncode == 0, again.stderr


@pytest.mark.parametrize("module", ["", "site", "ctl.errors", "grpc", "ctl.query_stream", "ctl.watch"])
def test_ctrl_c_while_the_demo_is_loaded_says_no_more_than_that(demo: Demo, module: str) -> None:
    """Python tells of each module that it has loaded; without one, at once."""
    with demo.start(PYTHONPROFILEIMPORTTIME="1") as process:
        assert process.stdout is not None
        if module:
            line = next(
                line for line in process.stdout if line.startswith("import time:") and line.split()[-1] == module
            )
            assert line
        os.killpg(process.pid, signal.SIGINT)
        rest = [line for line in process.stdout if not line.startswith("import time:")]
        assert process.wait(60) != 0
    assert "Traceback" not in "".join(rest)
    assert [line for line in rest if "interrupted" in line or "make" not in line] == (
        ["interrupted; everything is stopped\n"] if module else []
    )
    assert not demo.home.endpoints_file.exists()
    assert demo.living({}) == []


@pytest.mark.parametrize("module", ["grpc", "ctl.errors", "rich.console", "ctl.main"])
def test_ctrl_c_while_a_command_is_loaded_says_nothing(tmp_path: Path, module: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-X", "importtime", "-m", "ctl", "status", "--home", str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd=ROOT,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert any(line.split()[-1] == module for line in process.stdout)
        process.send_signal(signal.SIGINT)
        rest = [line for line in process.stdout if not line.startswith("import time:")]
        assert process.wait(60) in (-signal.SIGINT, 130, 3)
    assert "Traceback" not in "".join(rest)


def test_a_killed_demo_takes_its_stack_along(demo: Demo) -> None:
    with demo.start() as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "Deploying" in line:
                break
        known = dict(read_processes(demo.home))
        os.killpg(process.pid, signal.SIGKILL)
    assert known
    assert all(wait_until_gone(identity, 60) for identity in known.values())


def test_a_demo_that_nobody_reads_any_more_stops_everything(demo: Demo) -> None:
    with demo.start() as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "Deploying" in line:
                break
        known = dict(read_processes(demo.home))
        process.stdout.close()
        assert process.wait(60) != 0
    assert known
    assert demo.living(known) == []
    assert not demo.home.endpoints_file.exists()


def test_the_demo_removes_no_folder_but_its_own(demo: Demo) -> None:
    demo.home.root.mkdir()
    (demo.home.root / "thesis.txt").write_text("years of work")
    status, said = demo.run()
    assert status != 0
    assert "not a home that the demo made" in " ".join(said.split())
    assert (demo.home.root / "thesis.txt").exists()
