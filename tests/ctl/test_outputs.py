"""Output that nobody reads, that has no room, or that is closed: no traceback, and what was asked for is done."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ctl.local.processes import wait_until_gone
from tests.ctl.canned import DEAD_TASK, Canned
from tests.ctl.stacks import DEADLINE, Cli, until

_WAYS = [
    ("task", "ls"),
    ("task", "ls", "--output", "json"),
    ("status", "--output", "json"),
    ("query", "select * from range(50000)", "--output", "csv"),
    ("--help",),
]
"""One command for each way in which something is printed."""

_READING = [
    *_WAYS,
    ("task", "show", DEAD_TASK),
    ("dag", "show", "ethereum"),
    ("why", DEAD_TASK),
    ("status",),
    ("query", "select * from range(5000)"),
    ("query", "select * from range(50000)", "--output", "json"),
    ("task", "ls", "--help"),
]


def tracectl(arguments: tuple[str, ...], home: Path, redirection: str) -> "subprocess.CompletedProcess[str]":
    """Under a shell, which closes and redirects; its own status is that of tracectl."""
    script = f'"$0" -m ctl "$@" {redirection}'
    return subprocess.run(
        ["/bin/sh", "-c", script, sys.executable, *arguments],
        env={**os.environ, "TRACE_HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )


@pytest.mark.parametrize("arguments", _READING, ids=" ".join)
def test_who_reads_no_more_ends_a_command_without_a_word(
    canned: Canned, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    with subprocess.Popen(
        [sys.executable, "-m", "ctl", *arguments],
        env={**os.environ, "TRACE_HOME": str(tmp_path / "home")},
        stdout=write_end,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        os.close(write_end)
        _, complaint = process.communicate(timeout=DEADLINE)
    assert (process.returncode, complaint) == (-signal.SIGPIPE, "")


def test_who_leaves_the_pager_has_read_enough(canned: Canned, tmp_path: Path) -> None:
    screen, keyboard = os.openpty()
    try:
        done = subprocess.run(
            [sys.executable, "-m", "ctl", "query", "select repeat('x', 80) from range(5000)", "--limit", "5000"],
            env={**os.environ, "TRACE_HOME": str(tmp_path / "home"), "TERM": "xterm", "PAGER": "true"},
            stdin=keyboard,
            stdout=keyboard,
            stderr=subprocess.PIPE,
            text=True,
            timeout=DEADLINE,
            check=False,
        )
    finally:
        os.close(screen)
        os.close(keyboard)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("arguments", _WAYS, ids=" ".join)
def test_a_full_disk_is_said(canned: Canned, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    result = tracectl(arguments, tmp_path / "home", "> /dev/full")
    assert result.returncode == 1
    assert result.stderr.startswith("error: cannot write: No space left on device\n")
    assert "Traceback" not in result.stderr
    assert "Exception ignored" not in result.stderr


@pytest.mark.parametrize("arguments", _WAYS, ids=" ".join)
def test_a_closed_output_is_one_that_nobody_wants(canned: Canned, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    result = tracectl(arguments, tmp_path / "home", ">&-")
    assert result.returncode == 0
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("redirection", ["2>&-", "2> /dev/full", "<&- >&- 2>&-"])
def test_an_error_that_cannot_be_told_keeps_its_status(canned: Canned, tmp_path: Path, redirection: str) -> None:
    assert tracectl(("task", "ls", "--state", "finished"), tmp_path / "home", redirection).returncode == 2


def test_a_change_is_made_whole_whoever_reads(canned: Canned, tmp_path: Path) -> None:
    result = tracectl(("task", "retry", "--all", "--yes"), tmp_path / "home", "| true")
    assert result.stderr == ""
    assert [request.page_token for request in canned.requests if not request.dry_run] == ["", "2", "4"]


def first_lines(process: "subprocess.Popen[str]", count: int) -> list[str]:
    """As `head` does: reads so many and goes."""
    assert process.stdout is not None
    lines = [process.stdout.readline() for _ in range(count)]
    process.stdout.close()
    return lines


def test_a_stack_outlives_who_reads_how_it_starts(cli: Cli) -> None:
    with cli.start("up", "--port", "0", "--detach") as process:
        assert all(first_lines(process, 1))
        assert process.wait(DEADLINE) == 0
    assert cli.run("status").returncode == 0
    processes = cli.processes()
    with cli.start("down") as process:
        assert all(first_lines(process, 1))
        assert process.wait(DEADLINE) == 0
    assert not any(identity.is_alive() for identity in processes.values())


@pytest.mark.parametrize(
    ("redirection", "output"), [(">&-", "table"), ("> /dev/full", "json"), ("> /dev/full 2>&1", "table")]
)
def test_a_stack_starts_and_stops_whatever_its_output_is(cli: Cli, redirection: str, output: str) -> None:
    up = cli.shell(f"up --port 0 --detach --output {output}", redirection)
    assert (up.returncode, "Traceback" in up.stderr) == (0, False)
    assert cli.run("status").returncode == 0
    down = cli.shell(f"down --output {output}", redirection)
    assert (down.returncode, "Traceback" in down.stderr) == (0, False)
    assert not any(identity.is_alive() for identity in cli.processes().values())


def test_a_stack_in_the_foreground_goes_on_without_a_reader(cli: Cli) -> None:
    with cli.start("up", "--port", "0") as process:
        assert all(first_lines(process, 1))
        until(cli.home.endpoints_file.exists, "the stack serves")
        processes = cli.processes()
        process.send_signal(signal.SIGINT)
        assert process.wait(DEADLINE) == 0
    assert all(wait_until_gone(identity, 1) for identity in processes.values())


def test_down_tells_programs_whether_it_stopped_anything(cli: Cli) -> None:
    assert cli.run("up", "--port", "0", "--detach").returncode == 0
    for stopped in (True, False):
        down = cli.run("down", "--output", "json")
        assert json.loads(down.stdout) == {"home": str(cli.home.root), "stopped": stopped}
        assert ("asked the stack" in down.stderr) == stopped
