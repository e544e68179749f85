"""What a person is told to do: something that a person can do, with commands that there are."""

import re
from typing import Any

import pytest
import typer

from ctl.main import app
from ctl.remedies import AMONG_PROGRAMS, AS_IN_THE_TABLE, BY_COMMAND, remedy_of
from kernel.errors import ErrorRow, TraceError, error_table
from tests.ctl.canned import Canned, task_id
from tests.ctl.conftest import Run
from traceapi.types.v1 import errors_pb2

_OF_PROGRAMS = re.compile(r"wake-up|backoff|Drop|violations|authorization|\blease|the run|Complete|Emit|\bkey\b")


def test_every_reason_is_decided_on() -> None:
    decided = [*BY_COMMAND, *AS_IN_THE_TABLE, *AMONG_PROGRAMS]
    assert sorted(decided) == sorted(row.reason for row in error_table())


@pytest.mark.parametrize("row", error_table(), ids=lambda row: row.name)
def test_a_person_is_told_nothing_that_only_a_program_can_do(row: ErrorRow) -> None:
    remedy = remedy_of(TraceError(row.reason, "what happened"), " --home /srv/trace")
    assert remedy
    assert not _OF_PROGRAMS.search(remedy), remedy
    assert "{" not in remedy


def test_the_commands_that_remedies_name_are_there_and_take_the_home() -> None:
    named = [words for text in BY_COMMAND.values() for words in re.findall(r": tracectl ([^;]*)|; tracectl (.*)", text)]
    assert named
    for first, second in named:
        words = (first or second).removesuffix("{home}").split()
        assert (first or second).endswith("{home}"), words
        found: Any = typer.main.get_command(app)
        for word in words:
            found = found if word.isupper() else found.commands[word]


@pytest.mark.parametrize(
    ("command", "remedy"),
    [
        (("task", "show", task_id(999_999)), "tracectl task ls --home"),
        (("dag", "show", "none"), "tracectl dag ls --home"),
        (("dataset", "show", "none"), "tracectl dataset ls --home"),
    ],
)
def test_what_is_not_there_can_be_looked_up_with_the_command_that_is_named(
    run: Run, canned: Canned, command: tuple[str, ...], remedy: str
) -> None:
    result = run(*command)
    assert result.exit_code == 1
    assert remedy in result.stderr.replace("\n", " ")


@pytest.mark.parametrize(
    ("reason", "metadata", "told"),
    [
        (errors_pb2.ERROR_REASON_NOT_CAUGHT_UP, {"dag": "chain"}, "tracectl dag watch chain --home x"),
        (errors_pb2.ERROR_REASON_DEPLOYMENT_IN_PROGRESS, {"dag": "chain"}, "tracectl dag abort chain --home x; then"),
        (errors_pb2.ERROR_REASON_DAG_NOT_ACTIVE, {"dag": "my chain"}, "tracectl dag history 'my chain' --home x"),
        (errors_pb2.ERROR_REASON_SCOPE_MISMATCH, {"dataset_id": "a.b"}, "tracectl dataset show a.b --home x"),
        (errors_pb2.ERROR_REASON_NOT_CAUGHT_UP, {}, "tracectl dag watch DAG --home x"),
    ],
)
def test_what_the_error_is_about_is_named_in_the_command(reason: int, metadata: dict[str, str], told: str) -> None:
    assert told in remedy_of(TraceError(reason, "what happened", metadata=metadata), " --home x")


def test_a_reason_of_a_newer_server_is_told_as_a_defect() -> None:
    assert remedy_of(TraceError(9_999, "what happened")) == BY_COMMAND[errors_pb2.ERROR_REASON_INTERNAL]
