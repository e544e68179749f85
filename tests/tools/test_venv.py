"""`make venv` when it is interrupted, with stand-ins for Python and pip: what is left, and what the next run does."""

import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from ctl.local.processes import ProcessIdentity, wait_until_gone

ROOT = Path(__file__).resolve().parents[2]
_SECONDS = 60.0

_PYTHON = """#!/bin/sh
case "$*" in
    "-m venv --clear "*) rm -rf "$4"; mkdir -p "$4/bin"; cp "$0" "$4/bin/python" ;;
    "-m pip "*) echo "pip $*" >> "$(dirname "$0")/../../said" ;;
    *) exit 0 ;;
esac
[ "$2" = "${FAKE_FAILS:-}" ] && exit 1
[ "$2" = "${FAKE_STAYS:-}" ] || exit 0
sleep 1000 &
echo "stays $!"
wait
"""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A tree with all that the script reads, and a Python that makes nothing."""
    for name in ("tools/venv.sh", "requirements/dev.txt", "pyproject.toml"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy2(ROOT / name, tmp_path / name)
    python = tmp_path / "python"
    python.write_text(_PYTHON)
    python.chmod(0o755)
    return tmp_path


def run(tree: Path, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [tree / "tools" / "venv.sh"],
        env={**os.environ, "PYTHON": str(tree / "python"), **environment},
        capture_output=True,
        text=True,
        timeout=_SECONDS,
        check=False,
    )


def interrupt(tree: Path, step: str) -> tuple[int, str, ProcessIdentity]:
    """SIGINT as a terminal sends it, during that step. Answers status, output, and a process that the step started."""
    with subprocess.Popen(
        [tree / "tools" / "venv.sh"],
        env={**os.environ, "PYTHON": str(tree / "python"), "FAKE_STAYS": step},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        child = ProcessIdentity.of(next(int(line.split()[1]) for line in process.stdout if line.startswith("stays ")))
        assert child is not None
        os.killpg(process.pid, signal.SIGINT)
        said = process.stdout.read()  # to its end: nothing that holds it is left
        return process.wait(_SECONDS), said, child


@pytest.mark.parametrize("step", ["venv", "pip"])
def test_an_interrupted_run_leaves_no_process_and_the_next_begins_anew(tree: Path, step: str) -> None:
    status, said, child = interrupt(tree, step)
    assert status == 130
    assert said == "make venv: interrupted; the next run makes whole what is unfinished\n"
    assert wait_until_gone(child, _SECONDS)  # its end of the pipe closes a moment before it has ended
    again = run(tree)
    assert again.returncode == 0, again.stderr
    assert "Making .venv" in again.stdout
    assert "Installing" in again.stdout
    assert run(tree).stdout == ""


def test_an_interrupted_update_begins_anew_too(tree: Path) -> None:
    assert run(tree).returncode == 0
    (tree / "requirements" / "dev.txt").write_text("another==1\n")
    interrupt(tree, "pip")
    assert "Making .venv" in run(tree).stdout


def test_an_update_that_pip_gives_up_keeps_the_environment(tree: Path) -> None:
    assert run(tree).returncode == 0
    (tree / "requirements" / "dev.txt").write_text("another==1\n")
    assert run(tree, FAKE_FAILS="pip").returncode == 1
    again = run(tree)
    assert "Making .venv" not in again.stdout
    assert "Installing" in again.stdout
