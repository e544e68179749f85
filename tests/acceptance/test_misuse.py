"""A stack, used wrongly in all ways that come to mind: each is one error that says what is wrong, and no traceback."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from ctl.main import app
from tests.acceptance.conftest import RunningStack

pytestmark = pytest.mark.acceptance

UNKNOWN = "0198c0de-0000-7000-8000-000000000001"
LONG = "x" * 256

# Of people who mistype, of scripts whose variables are not set, and of machines.
WRONG = [
    ("task show nope", "not a task's id: 'nope'"),
    ("task show ''", "TASK is empty"),
    (f"task show {UNKNOWN}", f"task {UNKNOWN} does not exist"),
    (f"task show {UNKNOWN} --watch", f"task {UNKNOWN} does not exist"),
    ("task ls --dag none", "no DAG is called none"),
    ("task ls --job none", "no job is called none"),
    ("task ls --dag ethereum --job none", "ethereum has no job called none"),
    ("task ls --dag ''", "--dag is empty"),
    ("task ls --state ''", "--state is empty"),
    ("task ls --state finished", "no task state is called 'finished'"),
    ("task ls --state queued,dead", "no task state is called 'queued,dead'"),
    ("task ls --limit -1", "greater than or equal to 0"),
    ("task ls --limit many", "valid integer"),
    ("task ls --scope ''", "--scope is empty"),
    ("task ls --scope ..", "not a scope"),
    ("task ls --scope 5..4", "the last cursor is below the first"),
    ("task ls --scope 9223372036854775808", "does not fit into 64 bits"),
    ("task cancel", "no task was chosen"),
    ("task cancel --dag '' --yes", "--dag is empty"),
    ("task cancel --job none", "no job is called none"),
    (f"task cancel {UNKNOWN}", f"there is no task {UNKNOWN}"),
    (f"task retry {UNKNOWN}", f"there is no task {UNKNOWN}"),
    ("task retry nope", "not a task's id: 'nope'"),
    (f"task skip {UNKNOWN}", "Missing option '--reason'"),
    (f"task skip {UNKNOWN} --reason ''", "--reason is empty"),
    (f"task skip {UNKNOWN} --reason known", f"there is no task {UNKNOWN}"),
    ("event ls --dataset none", "no dataset is called none"),
    ("event ls --dataset ''", "--dataset is empty"),
    (f"event ls --dataset {LONG}", "at most 255 bytes"),
    ("event ls --dataset eth.blocks --scope rubbish", "not a scope of eth.blocks"),
    ("dataset show none", "no dataset is called none"),
    ("dataset show ''", "DATASET is empty"),
    ("dataset ls --dag none", "no DAG is called none"),
    ("dag show none", "no DAG is called none"),
    ("dag show 'UPPER CASE'", "no DAG is called UPPER CASE"),
    ("dag pause none", "no DAG is called none"),
    ("dag pause ethereum none", "ethereum has no job none"),
    ("dag resume ''", "DAG is empty"),
    ("dag deploy .", "Is a directory"),
    ("dag deploy no-such-file", "No such file"),
    ("dag deploy /dev/zero", "is too long"),
    ("dag deploy /dev/null", "is empty"),
    ("dag validate ''", "FILE is empty"),
    ("queue set default", "nothing to set"),
    ("queue set default --window 99999999999", "less than or equal to 1000000"),
    ("queue set default --live 0", "greater than or equal to 1"),
    ("queue set 'UPPER CASE' --window 1", "regex pattern"),
    ("query ''", "SQL is empty"),
    ("query ' '", "there is no SQL"),
    ("query select", "line 1, column 1"),
    ("query 'drop table x'", "another statement"),
    ("query 'select 1; select 2'", "2 statements"),
    ("query 'select * from none'", "no dataset is called none"),
    ("query 'select nonsense from \"eth.blocks\"'", "nonsense"),
    ("query 'select 1' --timeout 0", "greater than or equal to 0.001"),
    ("query 'select 1' --limit -3", "greater than or equal to 0"),
    ("query 'select 1' --output yaml", "is not one of 'table', 'json', 'csv'"),
    ("why nope", "neither a task's id nor a dataset at a scope"),
    ("why @5", "neither a task's id nor a dataset at a scope"),
    ("why none@5", "no dataset is called none"),
    ("why eth.checked@rubbish", "not a scope of eth.checked"),
    ("why eth.gas_by_miner@5", "is virtual"),
    ("why eth.checked@900000", "no task makes eth.checked at this scope"),
    ("up --detach", "a stack runs on"),
    ("up --detach --port 70000", "less than or equal to 65533"),
    ("up --detach --replay-root ''", "--replay-root is empty"),
    ("status --home ''", "--home is empty"),
    ("status --home ~no-such-user/home", "cannot be a home"),
    ("status more", "unexpected extra argument"),
    ("nonsense", "No such command 'nonsense'"),
    ("task ls --nonsense", "No such option: --nonsense"),
]


def said(result: Result) -> str:
    """Without the frame and the line breaks of usage errors."""
    return " ".join(result.stderr.replace("│", " ").split())


@pytest.mark.parametrize(("line", "fault"), WRONG, ids=[line[:60] for line, _ in WRONG])
def test_a_wrong_use_is_one_clear_error(
    stack: RunningStack, monkeypatch: pytest.MonkeyPatch, line: str, fault: str
) -> None:
    monkeypatch.setenv("TRACE_HOME", str(stack.home.root))
    monkeypatch.setenv("COLUMNS", "160")
    result = CliRunner().invoke(app, shlex.split(line))
    assert isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code in (1, 2, 3)
    assert result.stdout == ""
    assert fault in said(result)
    starts = [line.partition(":")[0] for line in result.stderr.splitlines()]
    usage = result.stderr.count("─ Error ─")
    assert starts.count("error") + usage == 1
    assert starts.count("what to do") + usage == 1


@pytest.mark.parametrize(
    ("arguments", "stdin", "fault"),
    [
        ((b"dag", b"show", b"\xff"), b"", b"DAG is not UTF-8"),
        ((b"query", b"select '\xff'"), b"", b"SQL is not UTF-8"),
        ((b"query", b"-"), b"select '\xff'", b"the SQL on standard input is not UTF-8"),
        ((b"query", b"-"), b"x" * 1_048_577, b"the SQL on standard input is too long"),
        ((b"dag", b"deploy", b"\xff.yaml"), b"", b"No such file"),
    ],
)
def test_what_is_no_text_is_one_clear_error(
    stack: RunningStack, arguments: tuple[bytes, ...], stdin: bytes, fault: bytes
) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "ctl", *arguments],
        env={**os.environ, "TRACE_HOME": str(stack.home.root)},
        input=stdin,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 2
    assert fault in result.stderr
    assert b"Traceback" not in result.stderr


def test_a_document_whose_name_is_no_text_is_judged_all_the_same(stack: RunningStack, tmp_path: Path) -> None:
    file = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.yaml"))
    file.write_text("dag: x\n")
    result = stack.tracectl("dag", "validate", str(file))
    assert result.returncode == 1
    assert "`jobs` is not given" in result.stdout


def test_a_task_that_is_not_dead_is_said_to_be_what_it_is(stack: RunningStack) -> None:
    task_id = stack.tracectl("task", "ls", "--job", "checked", "--limit", "1").stdout.split()
    named = next(word for word in task_id if word.count("-") == 4)
    result = stack.tracectl("task", "retry", named)
    assert (result.returncode, result.stdout) == (0, "no task to retry: what is named is succeeded\n")
