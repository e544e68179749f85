"""Homes and files of other users: the command's own words say what is wrong, for every path that it takes."""

import importlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import typer

from ctl.main import app
from tests.ctl.conftest import Run

_NOBODY = 65_534


@contextmanager
def without_a_right_to(path: Path) -> Iterator[None]:
    """Within, this process may not enter or read it. Root may everything, so it becomes another user."""
    # Commands load it late, and another user may not read this tree.
    importlib.import_module("ctl.local.supervisor")
    importlib.import_module("ctl.query_stream")
    mode = path.stat().st_mode & 0o777
    path.chmod(0)
    if os.geteuid() == 0:
        os.setresuid(_NOBODY, _NOBODY, 0)
    try:
        yield
    finally:
        if os.getresuid()[2] == 0:
            os.setresuid(0, 0, 0)
        path.chmod(mode)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """One that every user may enter, which the folders of pytest are not."""
    folder = Path(tempfile.mkdtemp(prefix="trace-test-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("status", "belongs to somebody else"),
        ("task ls", "belongs to somebody else"),
        ("query select", "belongs to somebody else"),
        ("down", "belongs to somebody else"),
        ("up --port 0", "cannot"),
        ("up --port 0 --detach", "cannot"),
    ],
)
def test_a_home_that_one_may_not_enter_is_named(run: Run, open_folder: Path, command: str, words: str) -> None:
    home = open_folder / "home"
    home.mkdir(mode=0o700)
    with without_a_right_to(home):
        result = run(*command.split(), "--home", str(home))
    assert isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code in (1, 3)
    assert result.stderr.startswith("error: ")
    assert str(home) in result.stderr
    assert words in result.stderr
    assert "what to do:" in result.stderr


@pytest.mark.parametrize("command", ["validate", "deploy"])
def test_a_document_that_one_may_not_read_is_named(run: Run, open_folder: Path, command: str) -> None:
    document = open_folder / "dag.yaml"
    document.write_text("dag: ethereum\n")
    with without_a_right_to(document):
        result = run("dag", command, str(document))
    assert result.exit_code == 2
    assert f"{document}:1:1: cannot read the document: Permission denied\n" in result.output


def test_no_path_is_judged_by_typer() -> None:
    def parameters(command: Any) -> Iterator[Any]:
        for below in getattr(command, "commands", {}).values():
            yield from parameters(below)
        yield from command.params

    paths = [one for one in parameters(typer.main.get_command(app)) if "Path" in str(one.type_descriptor.annotation)]
    assert paths
    assert [one.name for one in paths if one.type_descriptor.parameter_info.readable] == []
