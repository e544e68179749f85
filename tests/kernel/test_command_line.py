"""The command line that all programs have: what it shows, and how it ends."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import pytest

from kernel.command_line import configure
from kernel.config import SecretStr
from kernel.settings import Example, Range


class Sandbox(StrEnum):
    ON = "on"
    OFF = "off"


@dataclass(frozen=True, slots=True)
class Config:
    """Settings of a program that does not exist."""

    database_url: Annotated[SecretStr, Example("postgresql://example")]
    """Where the data
    is."""
    capacity: Annotated[int, Range(1, 10), Example(4)] = 8
    """How much at once."""
    queues: Annotated[tuple[str, ...], Example(("a", "b"))] = ("default",)
    sandbox: Sandbox = Sandbox.ON
    work_dir: Path | None = None


def run(arguments: list[str], environ: dict[str, str]) -> Config:
    return configure(Config, program="sampler", purpose="Takes samples.", arguments=arguments, environ=environ)


def ends(arguments: list[str], environ: dict[str, str]) -> int | str | None:
    with pytest.raises(SystemExit) as ended:
        run(arguments, environ)
    return ended.value.code


def test_without_a_question_the_settings_are_answered() -> None:
    assert run([], {"TRACE_DATABASE_URL": "x"}) == Config(SecretStr("x"))


def test_help_lists_every_setting_and_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    assert ends(["--help"], {}) == 0
    said = capsys.readouterr().out
    for part in (
        "usage: trace-sampler",
        "database_url, TRACE_DATABASE_URL\n      text, secret; required\n      Where the data is.",
        "capacity, TRACE_CAPACITY\n      whole number from 1 to 10; default 8\n      How much at once.",
        "queues, TRACE_QUEUES\n      list of text; default default",
        "sandbox, TRACE_SANDBOX\n      one of on, off; default on",
        "work_dir, TRACE_WORK_DIR\n      path; default none",
        '[sampler]\n  database_url = "postgresql://example"\n  capacity = 4\n  queues = ["a", "b"]\n',
        "trace-sampler --config trace.toml",
    ):
        assert part in said


def test_check_shows_every_value_and_its_source_but_no_secret(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "trace.toml"
    path.write_text("[sampler]\ncapacity = 3\n")
    assert ends(["--config", str(path), "--check"], {"TRACE_DATABASE_URL": "hunter2"}) == 0
    said = capsys.readouterr().out
    rows = {line.split()[0]: line.split()[1:] for line in said.splitlines() if line.startswith("  ")}
    assert rows == {
        "database_url": ["***", "TRACE_DATABASE_URL"],
        "capacity": ["3", str(path)],
        "queues": ["default", "default"],
        "sandbox": ["on", "default"],
        "work_dir": ["none", "default"],
    }
    assert "hunter2" not in said


def test_check_notes_a_variable_that_looks_misspelt(capsys: pytest.CaptureFixture[str]) -> None:
    environ = {"TRACE_DATABASE_URL": "x", "TRACE_CAPACTIY": "3", "TRACE_HOME": ".trace"}
    assert ends(["--check"], environ) == 0
    notes = [line for line in capsys.readouterr().out.splitlines() if "note:" in line]
    assert notes == ["  note: TRACE_CAPACTIY is no setting of this program; did you mean TRACE_CAPACITY?"]


@pytest.mark.parametrize("arguments", [[], ["--check"]])
def test_faults_are_told_together_and_end_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert ends(arguments, {"TRACE_CAPACITY": "11"}) == 2
    assert capsys.readouterr().err.splitlines() == [
        "sampler: the configuration has 2 fault(s):",
        "  TRACE_DATABASE_URL: is required",
        "  TRACE_CAPACITY: must be from 1 to 10",
    ]


def test_a_file_that_is_not_there_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    absent = tmp_path / "absent.toml"
    assert ends(["--config", str(absent)], {"TRACE_DATABASE_URL": "x"}) == 2
    assert f"{absent}: No such file or directory" in capsys.readouterr().err


def test_the_version_is_the_distribution_s(capsys: pytest.CaptureFixture[str]) -> None:
    assert ends(["--version"], {}) == 0
    assert capsys.readouterr().out.startswith("trace-sampler 0.")
