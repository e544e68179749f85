"""The embedded stack as a supervisor of processes: the programs are stand-ins, Postgres and all processes are real."""

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ctl.home import Endpoints, Home, read_endpoints
from ctl.local.ownership import read_processes
from ctl.local.processes import ProcessIdentity, wait_until_gone
from ctl.local.restarts import RestartHistory, RestartPolicy
from tests.ctl.fake_programs import FAULT
from tests.ctl.stacks import DEADLINE, Cli, answers, until


def test_up_serves_and_down_leaves_nothing(cli: Cli) -> None:
    up = cli.run("up", "--port", "0", "--detach")
    assert up.returncode == 0, up.stderr + up.stdout
    endpoints = read_endpoints(cli.home)
    for address in (endpoints.control, endpoints.internal, endpoints.query, *endpoints.wrappers):
        assert answers(address)
    assert set(endpoints.pids) == {"supervisor", "postgres", "dispatcher", "wrapper", "queryd"}
    for folder in (cli.home.root, cli.home.credentials):
        assert folder.stat().st_mode & 0o777 == 0o700
    for role in ("user", "worker", "queryd"):
        assert cli.home.token_file(role).stat().st_mode & 0o777 == 0o600
    assert cli.run("status").returncode == 0

    processes = cli.processes()
    down = cli.run("down")
    assert down.returncode == 0, down.stderr
    assert not any(identity.is_alive() for identity in processes.values())
    assert not cli.home.endpoints_file.exists()
    assert cli.run("task", "ls").returncode == 3


def test_down_is_idempotent(cli: Cli) -> None:
    assert cli.run("down").returncode == 0
    assert not cli.home.root.exists()
    assert cli.run("up", "--port", "0", "--detach").returncode == 0
    assert "is stopped" in cli.run("down").stdout
    assert "no stack runs" in cli.run("down").stdout


def test_a_second_up_is_refused_and_names_the_first(cli: Cli) -> None:
    assert cli.run("up", "--port", "0", "--detach").returncode == 0
    before = read_endpoints(cli.home)
    for arguments in (("--detach",), ()):
        second = cli.run("up", "--port", "0", *arguments)
        assert second.returncode == 1
        assert f"(process {before.pids['supervisor']})" in second.stderr
        assert "tracectl down" in second.stderr
    assert read_endpoints(cli.home) == before
    assert answers(before.control)


def test_the_credentials_and_the_data_outlive_a_stop(cli: Cli) -> None:
    assert cli.run("up", "--port", "0", "--detach").returncode == 0
    token = cli.home.token_file("user").read_text()
    assert cli.run("down").returncode == 0
    assert cli.run("up", "--port", "0", "--detach").returncode == 0
    assert cli.home.token_file("user").read_text() == token


def test_ctrl_c_stops_in_order(cli: Cli) -> None:
    with cli.start("up", "--port", "0") as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "Ctrl-C stops it" in line:
                break
        processes = cli.processes()
        process.send_signal(signal.SIGINT)
        rest = process.stdout.read()
        assert process.wait(DEADLINE) == 0
    stopped = [line.split()[0] for line in rest.splitlines() if line.rstrip().endswith("stopped")]
    assert stopped == ["wrapper", "queryd", "dispatcher", "postgres"]
    assert not any(identity.is_alive() for identity in processes.values())


def test_ctrl_c_while_it_starts_leaves_nothing(cli: Cli) -> None:
    with cli.start("up", "--port", "0") as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("postgres runs"):
                break
        processes = cli.processes()
        process.send_signal(signal.SIGINT)
        process.stdout.read()
        process.wait(DEADLINE)
    assert processes
    assert not any(identity.is_alive() for identity in processes.values())
    assert cli.run("up", "--port", "0", "--detach").returncode == 0


def test_a_second_ctrl_c_kills(cli: Cli) -> None:
    with cli.start("up", "--port", "0", **{FAULT: "wrapper:mute"}) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "Ctrl-C stops it" in line:
                break
        processes = cli.processes()
        log = cli.home.log_file("wrapper")
        process.send_signal(signal.SIGINT)
        until(lambda: "hears SIGTERM" in log.read_text(), "the wrapper hears SIGTERM")
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        process.stdout.read()
        process.wait(DEADLINE)
    assert time.monotonic() - began < 10  # and not the 20 s that a program is given
    assert not any(identity.is_alive() for identity in processes.values())


def test_programs_that_die_are_reported_and_started_again(cli: Cli) -> None:
    assert cli.run("up", "--port", "0", "--detach").returncode == 0
    first = read_endpoints(cli.home)
    log = cli.home.log_file("supervisor")
    for program in ("wrapper", "queryd", "dispatcher", "postgres"):
        os.kill(first.pids[program], signal.SIGKILL)
        until(lambda program=program: f"{program} serves again" in log.read_text(), f"{program} runs again")  # type: ignore[misc]
        assert f"{program} starts again in 0.5 s" in log.read_text()
        if program != "postgres":
            assert f"{program} was ended by SIGKILL; the end of its log:\n{program} begins" in log.read_text()
    after = read_endpoints(cli.home)
    assert (after.control, after.internal, after.query) == (first.control, first.internal, first.query)
    assert after.wrappers == first.wrappers
    assert not set(after.pids.values()) & {pid for name, pid in first.pids.items() if name != "supervisor"}
    assert cli.run("status").returncode == 0


def test_a_program_that_cannot_start_fails_up_with_its_log(cli: Cli) -> None:
    for arguments in (("--detach",), ()):
        up = cli.run("up", "--port", "0", *arguments, **{FAULT: "queryd:exit"})
        assert up.returncode == 1
        assert "queryd ended with status 1 before it served" in up.stderr
        assert "queryd cannot go on: a reason" in up.stderr
        assert not cli.home.endpoints_file.exists()
        assert not any(identity.is_alive() for identity in cli.processes().values())


def test_what_a_killed_supervisor_leaves_is_stopped_by_the_next_up(cli: Cli) -> None:
    assert cli.run("up", "--port", "0", "--detach", **{FAULT: "wrapper:deaf"}).returncode == 0
    processes = cli.processes()
    os.kill(processes["supervisor"].pid, signal.SIGKILL)
    log = cli.home.log_file("wrapper")
    # The kernel sends SIGTERM to all that the supervisor started; this wrapper does not listen and is left over.
    until(lambda: "hears SIGTERM 1" in log.read_text(), "the wrapper hears of its supervisor's end")
    assert wait_until_gone(processes["dispatcher"], DEADLINE)
    assert wait_until_gone(processes["postgres"], DEADLINE)
    assert processes["wrapper"].is_alive()
    assert cli.run("up", "--port", "0", "--detach").returncode == 0
    assert not processes["wrapper"].is_alive()
    assert f"stopped wrapper (process {processes['wrapper'].pid})" in cli.home.log_file("supervisor").read_text()


def test_down_stops_what_a_killed_supervisor_left(cli: Cli) -> None:
    assert cli.run("up", "--port", "0", "--detach", **{FAULT: "queryd:deaf"}).returncode == 0
    processes = cli.processes()
    os.kill(processes["supervisor"].pid, signal.SIGKILL)
    log = cli.home.log_file("queryd")
    until(lambda: "hears SIGTERM 1" in log.read_text(), "queryd hears of its supervisor's end")
    assert cli.run("down").returncode == 0
    assert not any(identity.is_alive() for identity in processes.values())


def test_folders_to_replay_from_reach_the_worker(cli: Cli, tmp_path: Path) -> None:
    folders = [tmp_path / "data", tmp_path / "more"]
    for folder in folders:
        folder.mkdir()
    options = [word for folder in folders for word in ("--replay-root", str(folder))]
    for arguments, environment, expected in (
        (options, {}, ",".join(map(str, folders))),
        ([], {"TRACE_REPLAY_ROOTS": str(folders[0])}, str(folders[0])),
    ):
        assert cli.run("up", "--port", "0", "--detach", *arguments, **environment).returncode == 0
        variables = Path(f"/proc/{read_endpoints(cli.home).pids['wrapper']}/environ").read_bytes().split(b"\0")
        assert f"TRACE_REPLAY_ROOTS={expected}".encode() in variables
        assert cli.run("down").returncode == 0


@pytest.mark.parametrize(
    ("folder", "said"),
    [("none", "no such folder"), (".", "overlap"), ("home", "overlap"), ("a,b", "separated by commas")],
)
def test_a_folder_that_the_worker_would_refuse_is_refused_before_anything_starts(
    cli: Cli, tmp_path: Path, folder: str, said: str
) -> None:
    for name in ("home", "a,b"):
        (tmp_path / name).mkdir()
    up = cli.run("up", "--port", "0", "--detach", "--replay-root", str(tmp_path / folder))
    assert up.returncode == 2
    assert said in up.stderr
    assert not cli.home.run.exists()


def test_a_pid_that_names_another_process_by_now_is_left_alone(cli: Cli) -> None:
    with subprocess.Popen(["sleep", "60"]) as bystander:
        identity = ProcessIdentity.of(bystander.pid)
        assert identity is not None
        cli.home.run.mkdir(parents=True)
        stale = {**identity.to_json(), "start_time": identity.start_time - 1}
        cli.home.processes_file.write_text(json.dumps({"dispatcher": stale, "supervisor": stale}))
        assert "no stack runs" in cli.run("down").stdout
        assert bystander.poll() is None
        bystander.kill()


def test_ports_in_use_are_named_with_the_remedy(cli: Cli) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        up = cli.run("up", "--port", str(port - 1), "--detach")
    assert up.returncode == 1
    assert f"in use by another program: 127.0.0.1:{port}" in up.stderr
    assert "--port 0" in up.stderr
    assert not any(identity.is_alive() for identity in cli.processes().values())


def test_paths_with_blanks_and_long_paths(make_cli: Callable[[str], Cli]) -> None:
    cli = make_cli("a home with 'blanks' and quotes/" + "/".join(["a-rather-long-name"] * 8))
    assert cli.run("up", "--port", "0", "--detach").returncode == 0
    assert cli.run("status").returncode == 0
    assert cli.run("down").returncode == 0


def test_a_home_that_cannot_be_made_is_named(tmp_path: Path, cli: Cli) -> None:
    (tmp_path / "file").touch()
    cli.home = Home.at(tmp_path / "file" / "home")
    up = cli.run("up", "--detach", "--port", "0")
    assert up.returncode == 1
    assert "as a home" in up.stderr
    assert "Traceback" not in up.stderr


def test_a_home_of_an_earlier_release_is_closed_to_others_and_keeps_its_data(cli: Cli) -> None:
    assert cli.run("up", "--port", "0", "--detach").returncode == 0
    assert cli.run("down").returncode == 0
    cli.home.root.chmod(0o755)
    up = cli.run("up", "--port", "0", "--detach")
    assert up.returncode == 0, up.stderr
    assert "its mode was 0755" in up.stdout
    assert cli.home.root.stat().st_mode & 0o777 == 0o700


def test_a_folder_of_others_things_is_neither_closed_nor_used(cli: Cli) -> None:
    cli.home.root.mkdir()
    cli.home.root.chmod(0o755)
    (cli.home.root / "thesis.txt").touch()
    for arguments in (("--detach",), ()):
        up = cli.run("up", "--port", "0", *arguments)
        assert up.returncode == 1
        assert "holds more than a stack (thesis.txt)" in up.stderr
        assert "--home DIR" in up.stderr
    assert cli.home.root.stat().st_mode & 0o777 == 0o755
    assert [entry.name for entry in cli.home.root.iterdir()] == ["thesis.txt"]


def test_a_folder_of_another_user_is_not_used(cli: Cli) -> None:
    if os.geteuid() == 0:
        cli.home.root.mkdir(mode=0o700)
        os.chown(cli.home.root, 65534, 65534)
    else:
        cli.home = Home.at(Path("/usr"))
    up = cli.run("up", "--port", "0", "--detach")
    assert up.returncode == 1
    assert "belongs to another user" in up.stderr


def stores(home: Home) -> list[str]:
    """The store of each start of each program."""
    logs = [home.log_file(name).read_text() for name in ("dispatcher", "wrapper", "queryd")]
    return [line.removeprefix("artifacts: ") for log in logs for line in log.splitlines() if "artifacts: " in line]


def test_a_home_keeps_the_store_that_it_began_with(cli: Cli, tmp_path: Path) -> None:
    chosen = f"{tmp_path.as_uri()}/elsewhere"
    failed = cli.run("up", "--port", "0", "--detach", "--artifacts", "s3://mistyped/x", **{FAULT: "dispatcher:exit"})
    assert failed.returncode == 1
    for arguments in (("--artifacts", chosen), ()):
        up = cli.run("up", "--port", "0", "--detach", *arguments)
        assert up.returncode == 0, up.stderr
        cli.run("down")
    assert stores(cli.home) == ["s3://mistyped/x", chosen, chosen, chosen, chosen, chosen, chosen]
    other = cli.run("up", "--port", "0", "--detach", "--artifacts", "s3://bucket/x")
    assert other.returncode == 2
    assert chosen in other.stderr
    assert "another home" in other.stderr


def test_a_home_without_a_choice_keeps_its_artifacts_itself(cli: Cli) -> None:
    """Also one of an earlier release, which wrote down no store."""
    assert cli.run("up", "--port", "0", "--detach").returncode == 0
    cli.run("down")
    assert stores(cli.home) == [cli.home.artifacts.as_uri()] * 3
    cli.home.store_file.unlink()
    (cli.home.artifacts / "data").mkdir(parents=True)
    refused = cli.run("up", "--port", "0", "--detach", "--artifacts", "s3://bucket/x")
    assert (refused.returncode, cli.home.artifacts.as_uri() in refused.stderr) == (2, True)


def test_what_is_no_store_is_refused_before_anything_starts(cli: Cli) -> None:
    up = cli.run("up", "--port", "0", "--detach", "--artifacts", "s3://key:hunter2@bucket")
    assert up.returncode == 2
    assert "AWS_SECRET_ACCESS_KEY" in up.stderr
    assert "hunter2" not in up.stderr
    assert read_processes(cli.home).keys() <= {"supervisor"}


def test_restarts_pause_longer_each_time_and_end() -> None:
    history = RestartHistory(RestartPolicy(first_pause=1, longest_pause=5, limit=4, settled_after=60))
    assert [history.died(ran_for=2) for _ in range(5)] == [1, 2, 4, 5, None]


def test_a_long_life_forgives_earlier_deaths() -> None:
    history = RestartHistory(RestartPolicy(first_pause=1, limit=2, settled_after=60))
    assert [history.died(ran_for=seconds) for seconds in (1, 1, 61, 1)] == [1, 2, 1, 2]


def test_endpoints_survive_their_file(tmp_path: Path) -> None:
    home = Home.at(tmp_path)
    endpoints = Endpoints("a:1", "b:2", "c:3", ("d:4",), tmp_path / "user.token", {"dispatcher": 5})
    home.endpoints_file.write_text(endpoints.to_json())
    assert read_endpoints(home) == endpoints
