"""Wrong homes, odd terminals and odd encodings: what a command meets before, and after, it has spoken to a stack."""

import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from ctl.home import Home
from tests.ctl.canned import Canned, watch_state
from tests.ctl.conftest import Run
from tests.ctl.stacks import DEADLINE, Cli

_EVERYWHERE = ["status", "task ls", "down", "up --detach --port 0"]


@pytest.mark.parametrize("command", _EVERYWHERE)
@pytest.mark.parametrize("home", ["~no-such-user/x", "loop/x"])
def test_what_can_be_no_home_is_named(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, home: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "loop").symlink_to("loop")
    result = run(*command.split(), "--home", home)
    assert result.exit_code in (1, 2, 3)
    assert isinstance(result.exception, SystemExit), result.exception
    assert result.stderr.startswith("error: ")
    assert "what to do:" in result.stderr


@pytest.mark.parametrize("command", ["status", "task ls"])
def test_a_home_whose_name_is_too_long_is_named(run: Run, command: str) -> None:
    result = run(*command.split(), "--home", "x" * 300)
    assert (result.exit_code, "File name too long" in result.stderr) == (3, True)


@pytest.mark.parametrize("home", ["relative", "/"])
def test_a_command_in_a_folder_that_is_gone_fails_with_words(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: str
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    result = run("status", "--home", home)
    assert isinstance(result.exception, SystemExit), result.exception
    assert result.stderr.startswith("error: ")


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"{", "is not what it should be"),
        (b"[]", "is not what it should be"),
        (b"\xff\xfe", "is not what it should be"),
        (b'{"control": "127.0.0.1:1"}', "has no member 'query'"),
        (None, "cannot be read: Is a directory"),
    ],
)
def test_a_file_of_endpoints_that_is_none_is_named(run: Run, tmp_path: Path, content: bytes | None, fault: str) -> None:
    file = tmp_path / "home" / "endpoints.json"
    file.parent.mkdir()
    file.mkdir() if content is None else file.write_bytes(content)
    result = run("task", "ls")
    assert result.exit_code == 3
    assert f"error: the file of endpoints {fault}" in result.stderr
    assert f"where: {file}" in result.stderr
    assert "correct it, or have it written again: tracectl down --home" in result.stderr


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"control": "nonsense"}, "write it as host:port"),
        ({"control": "127.0.0.1:99999"}, "write it as host:port"),
        ({"tls": {"authority": "none.pem"}}, "none.pem: No such file or directory"),
        ({"credentials": {"user": "none"}}, "cannot read the credential"),
    ],
)
def test_endpoints_that_lead_nowhere_are_named(
    run: Run, canned: Canned, tmp_path: Path, change: dict[str, object], fault: str
) -> None:
    file = tmp_path / "home" / "endpoints.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    result = run("task", "ls")
    assert (result.exit_code, fault in result.stderr) == (3, True)
    assert "what to do:" in result.stderr


def test_a_home_is_named_as_others_can_use_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The supervisor runs within the home, and what it says is read elsewhere."""
    monkeypatch.chdir(tmp_path)
    assert Home.at(Path(".trace")).option() == ""
    assert Home.at(Path("a home")).option() == " --home 'a home'"
    assert Home.at(Path("/srv/trace")).option() == " --home /srv/trace"
    assert Home.at(Path()).option() == f" --home {tmp_path}"


def test_of_two_that_start_at_once_one_is_refused(cli: Cli) -> None:
    with cli.start("up", "--port", "0", "--detach") as first, cli.start("up", "--port", "0", "--detach") as second:
        said = [process.communicate(timeout=DEADLINE)[0] for process in (first, second)]
    refused = [text for text in said if "error:" in text]
    assert sorted([first.returncode, second.returncode]) == [0, 1], said
    assert f"a stack runs on {cli.home.root} already" in refused[0]
    assert f"tracectl status --home {cli.home.root}" in refused[0]
    assert cli.run("status").returncode == 0


def on_a_terminal(home: Path, *arguments: str, columns: int = 80, **environment: str) -> tuple[int, str]:
    """Status, and all that the terminal got."""
    screen, keyboard = pty.openpty()
    fcntl.ioctl(keyboard, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    clean = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")}
    with subprocess.Popen(
        [sys.executable, "-m", "ctl", *arguments],
        env={**clean, "TRACE_HOME": str(home), "TERM": "xterm-256color", **environment},
        stdin=keyboard,
        stdout=keyboard,
        stderr=keyboard,
    ) as process:
        os.close(keyboard)
        got = b""
        while part := _read(screen):
            got += part
    os.close(screen)
    return process.returncode, got.decode()


def _read(screen: int) -> bytes:
    try:
        return os.read(screen, 65_536)
    except OSError:  # the last process that had it is gone
        return b""


_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_SET_COLOUR = re.compile(r"\x1b\[(?:[0-9;]*;)?(?:3[0-8]|9[0-7])(?:;[0-9]+)*m")


def test_on_a_terminal_there_are_colours_but_where_they_are_not_wanted(canned: Canned, tmp_path: Path) -> None:
    home = tmp_path / "home"
    assert _SET_COLOUR.search(on_a_terminal(home, "status")[1])
    assert not _SET_COLOUR.search(on_a_terminal(home, "status", NO_COLOR="1")[1])
    assert "\x1b" not in on_a_terminal(home, "status", TERM="dumb")[1]


def test_a_narrow_terminal_gets_narrow_lines(canned: Canned, tmp_path: Path) -> None:
    status, got = on_a_terminal(tmp_path / "home", "task", "ls", "--limit", "3", columns=40)
    assert status == 0
    assert max(len(line) for line in _COLOUR.sub("", got).splitlines()) <= 40


def test_a_terminal_that_cannot_move_its_cursor_gets_lines(canned: Canned, tmp_path: Path) -> None:
    document = tmp_path / "dag.yaml"
    document.write_text("dag: ethereum\n")
    canned.watched = [watch_state(queued=10), watch_state(succeeded=10, settled=True)]
    status, got = on_a_terminal(tmp_path / "home", "dag", "deploy", str(document), "--wait", TERM="dumb")
    assert (status, "\x1b" in got) == (0, False)
    assert "checked 10/10" in got


@pytest.mark.parametrize(("columns", "least"), [("0", 60), ("1", 5), ("rubbish", 60), ("-5", 60)])
def test_a_width_that_is_none_hides_nothing(
    run: Run, canned: Canned, monkeypatch: pytest.MonkeyPatch, columns: str, least: int
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    result = run("task", "ls", "--limit", "1")
    assert result.exit_code == 0
    assert max(len(line.rstrip()) for line in result.stdout.splitlines()) >= least


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_what_a_terminal_has_no_letter_for_is_no_failure(canned: Canned, tmp_path: Path, encoding: str) -> None:
    def shown(*arguments: str) -> bytes:
        done = subprocess.run(
            [sys.executable, "-m", "ctl", *arguments],
            env={**os.environ, "TRACE_HOME": str(tmp_path / "home"), "PYTHONIOENCODING": encoding},
            capture_output=True,
            timeout=DEADLINE,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, b"")
        return done.stdout

    assert b"ethereum" in shown("dag", "show", "ethereum")
    # What is for programs is exact, whatever the terminal.
    assert shown("query", "select 'Öl' as a", "--output", "csv") == "a\nÖl\n".encode()
    assert json.loads(shown("query", "select 'Öl' as a", "--output", "json")) == {"a": "Öl"}


def test_a_document_without_an_end_is_not_read_to_it(run: Run, canned: Canned) -> None:
    result = run("dag", "validate", "/dev/zero")
    assert (result.exit_code, "is too long" in result.stdout) == (1, True)


@pytest.mark.parametrize("line", [["task", "cancel", "--dag", "", "--yes"], ["task", "retry", "", "--yes"]])
def test_an_unset_variable_chooses_nothing(run: Run, canned: Canned, line: list[str]) -> None:
    result = run(*line)
    assert (result.exit_code, "is empty" in result.stderr) == (2, True)
    assert canned.requests == []
