"""What is said of a document: each problem with its place, and those of what it names on this disk."""

import os
from pathlib import Path

import pytest
from google.protobuf import json_format

from tests.ctl.canned import Canned
from tests.ctl.conftest import Run
from traceapi.control.v1 import dag_service_pb2


def test_validate_names_every_problem_with_its_place_and_a_caret(run: Run, canned: Canned, document: Path) -> None:
    canned.problems = [
        dag_service_pb2.DagProblem(
            file_name=str(document),
            line=3,
            column=12,
            message="unknown key `operater`",
            remedy="did you mean `operator`?",
        ),
        dag_service_pb2.DagProblem(file_name=str(document), line=2, column=1, message="second"),
    ]
    result = run("dag", "validate", str(document))
    assert result.exit_code == 1
    lines = result.stdout.splitlines()
    assert lines[0].startswith(str(document))
    assert ":3:12: unknown key `operater`" in result.stdout.replace("\n", "")
    source = next(index for index, line in enumerate(lines) if "ranges: {operater" in line)
    assert lines[source + 1].index("▲") == lines[source].index("operater")
    assert "did you mean `operator`?" in result.stdout
    assert "2 problems" in result.stdout


def test_validate_of_a_sound_document(run: Run, canned: Canned, document: Path) -> None:
    result = run("dag", "validate", str(document))
    assert result.exit_code == 0
    assert "can be deployed" in result.stdout
    request = canned.asked(dag_service_pb2.ValidateDagRequest)
    assert request.document.text == document.read_text()
    assert request.document.file_name == str(document)


def test_as_many_problems_as_are_looked_for_are_not_said_to_be_all(run: Run, canned: Canned, document: Path) -> None:
    canned.problems = [
        dag_service_pb2.DagProblem(line=number, column=1, message="unknown key") for number in range(1, 201)
    ]
    assert run("dag", "validate", str(document)).stdout.splitlines()[-1] == "200 problems"
    canned.more_problems = True
    for command in ("validate", "deploy"):
        result = run("dag", command, str(document))
        assert "200 problems shown; more were not looked for" in result.stdout + result.stderr


UNREADABLE = [
    pytest.param(b"", "1:1: the document is empty", "begin with", 1, id="empty"),
    pytest.param(b"dag: x\njobs: \xff", "2:7: the document is not UTF-8", "save it as UTF-8", 1, id="no text"),
    pytest.param(b"#" * 1_048_577, "1:1: the document is too long: at most", "name the file", 1, id="too long"),
    pytest.param(None, "1:1: cannot read the document: No such file", "name the file", 2, id="missing"),
]


@pytest.mark.parametrize(("content", "fault", "remedy", "status"), UNREADABLE)
def test_a_document_without_text_is_a_problem_with_its_place(
    run: Run, canned: Canned, tmp_path: Path, content: bytes | None, fault: str, remedy: str, status: int
) -> None:
    file = tmp_path / "bad.yaml"
    if content is not None:
        file.write_bytes(content)
    result = run("dag", "validate", str(file))
    assert (result.exit_code, result.stderr) == (status, "")
    shown = " ".join(result.stdout.split())
    assert shown.startswith(f"{file}:{fault}")
    assert shown.endswith("1 problem")
    assert remedy in shown
    deployed = run("dag", "deploy", str(file))
    assert (deployed.exit_code, deployed.stdout) == (status, "")
    said = " ".join(deployed.stderr.split())
    assert said.startswith(shown)
    assert "error: the document was not deployed" in said
    assert canned.requests == []


@pytest.mark.parametrize(("content", "fault", "remedy", "status"), UNREADABLE)
def test_a_document_without_text_is_a_problem_for_programs_too(
    run: Run, canned: Canned, tmp_path: Path, content: bytes | None, fault: str, remedy: str, status: int
) -> None:
    file = tmp_path / "bad.yaml"
    if content is not None:
        file.write_bytes(content)
    result = run("dag", "validate", str(file), "--output", "json")
    assert result.exit_code == status
    (problem,) = json_format.Parse(result.stdout, dag_service_pb2.ValidateDagResponse()).problems
    assert f"{problem.line}:{problem.column}: {problem.message}".startswith(fault)
    assert (problem.file_name, remedy in problem.remedy) == (str(file), True)


@pytest.mark.parametrize("command", ["deploy", "validate"])
def test_every_path_that_is_not_there_is_a_problem_with_its_place(
    run: Run, canned: Canned, document: Path, command: str
) -> None:
    canned.local_paths = [
        dag_service_pb2.LocalPath(path="operators", job="checked", line=12, column=9),
        dag_service_pb2.LocalPath(path="rows.csv", job="blocks", file=True, line=4, column=20),
    ]
    result = run("dag", command, str(document))
    shown = " ".join((result.stdout + result.stderr).split())
    assert result.exit_code == 1
    assert f"{document}:12:9: job checked: there is no folder" in shown
    assert f"{document}:4:20: job blocks: there is no file" in shown
    assert shown.index(":4:20:") < shown.index(":12:9:")
    assert "2 problems" in shown
    assert canned.bundles == {}


def test_paths_that_are_not_there_stand_among_the_other_problems(run: Run, canned: Canned, document: Path) -> None:
    canned.problems = [dag_service_pb2.DagProblem(line=line, column=1, message=f"fault {line}") for line in (3, 12)]
    canned.local_paths = [dag_service_pb2.LocalPath(path="rows.csv", job="blocks", file=True, line=4, column=20)]
    shown = run("dag", "validate", str(document)).stdout
    assert shown.index("fault 3") < shown.index("there is no file") < shown.index("fault 12")
    assert "3 problems" in shown


@pytest.mark.parametrize("name", [b"\xff", b"x" * 300])
def test_a_path_that_nobody_can_have_is_a_problem_too(run: Run, canned: Canned, tmp_path: Path, name: bytes) -> None:
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff"))
    folder.mkdir()
    (folder / "dag.yaml").write_text("dag: x\n")
    written = name.decode(errors="replace")
    canned.local_paths = [dag_service_pb2.LocalPath(path=written, job="blocks", file=True, line=1, column=1)]
    result = run("dag", "validate", str(folder / "dag.yaml"))
    assert isinstance(result.exception, SystemExit), result.exception
    assert (result.exit_code, "1 problem" in result.stdout) == (1, True)


@pytest.mark.parametrize(
    ("code", "fault"),
    [
        ("def links(task): ...", ""),
        ("links, other = 1, 2", ""),
        ("from elsewhere import work as links", ""),
        ("try:\n    import fast\nexcept ImportError:\n    fast = None", ""),
        ("def lnks(task): ...", "has no 'links'"),
        ("def links(task: ...", "cannot read the module"),
        ("links = " + "(" * 500 + "1" + ")" * 500, "cannot read the module"),
    ],
)
def test_an_entrypoint_that_cannot_be_there_is_a_problem(
    run: Run, canned: Canned, document: Path, code: str, fault: str
) -> None:
    folder = document.parent / "operators"
    folder.mkdir()
    (folder / "checks.py").write_text(code)
    canned.local_paths = [dag_service_pb2.LocalPath(path="operators", job="checked", line=12, column=9)]
    result = run("dag", "validate", str(document))
    assert result.exit_code == (1 if fault else 0)
    assert fault in " ".join(result.stdout.split())


def test_a_module_that_is_not_in_the_bundle_is_a_problem(run: Run, canned: Canned, document: Path) -> None:
    (document.parent / "operators").mkdir()
    (document.parent / "operators" / "other.py").write_text("def links(task): ...")
    canned.local_paths = [dag_service_pb2.LocalPath(path="operators", job="checked", line=12, column=9)]
    result = run("dag", "validate", str(document))
    assert result.exit_code == 1
    assert "checks.py" in result.stdout
