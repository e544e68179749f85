"""Crash points: every one that stands in the code is known by name, and an armed one kills at its hit."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from kernel.crash import POINTS, arm
from tests.crashing.points import points_of_the_code

ROOT = Path(__file__).resolve().parents[2]
_PROGRAM = """
import sys
from kernel.crash import arm, crash
arm(sys.argv[1])
for _ in range(3):
    crash("emit.ready")
    print("passed", flush=True)
    crash("end.ready")
"""


def run(points: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", _PROGRAM, points], cwd=ROOT, capture_output=True, text=True, check=False
    )


def test_every_point_stands_in_the_code_once() -> None:
    assert sorted(points_of_the_code()) == sorted(POINTS)


def test_a_process_dies_at_the_hit_that_was_asked_for() -> None:
    ended = run("emit.ready:2,end.ready:3")
    assert (ended.returncode, ended.stdout) == (-signal.SIGKILL, "passed\n")


def test_unarmed_points_do_nothing() -> None:
    ended = run("")
    assert (ended.returncode, ended.stdout) == (0, "passed\n" * 3)


@pytest.mark.parametrize("points", ["nowhere:1", "emit.ready", "emit.ready:0"])
def test_what_is_no_point_is_refused(points: str) -> None:
    with pytest.raises(ValueError, match=points.partition(":")[0]):
        arm(points)
