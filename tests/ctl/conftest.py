"""A home whose endpoints are those of the fake services, a way to run tracectl against it, and stacks of stand-ins."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from ctl.home import Endpoints, Home, write_atomically
from ctl.main import app
from kernel.credentials import create_token_file
from tests.ctl.canned import Canned
from tests.ctl.fake_control import serve
from tests.ctl.fake_programs import make_programs
from tests.ctl.stacks import Cli

Run = Callable[..., Result]


@pytest.fixture
def canned(tmp_path: Path) -> Iterator[Canned]:
    """The fake services run, and the home `tmp_path / "home"` names them."""
    home = Home.at(tmp_path / "home")
    home.root.mkdir()
    found = Canned(token=create_token_file(home.token_file("user")))
    server, bound = serve(found, "127.0.0.1:0")
    endpoints = Endpoints(bound[0], bound[0], bound[0], (bound[0],), home.token_file("user"), {"dispatcher": 1})
    write_atomically(home.endpoints_file, endpoints.to_json())
    yield found
    server.stop(None).wait()


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command line on that home; `stdin` is its standard input."""
    monkeypatch.setenv("TRACE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COLUMNS", "160")

    def invoke(*arguments: str, stdin: str | None = None) -> Result:
        return CliRunner().invoke(app, list(arguments), input=stdin)

    return invoke


@pytest.fixture
def make_cli(tmp_path: Path) -> Iterator[Callable[[str], Cli]]:
    made: list[Cli] = []
    search_path = make_programs(tmp_path / "programs")

    def make(name: str = "home") -> Cli:
        environment = {**os.environ, "PYTHONPATH": search_path, "COLUMNS": "200"}
        made.append(Cli(Home.at(tmp_path / name), environment))
        return made[-1]

    yield make
    for one in made:
        one.clean_up()


@pytest.fixture
def cli(make_cli: Callable[[str], Cli]) -> Cli:
    return make_cli("home")


@pytest.fixture
def document(tmp_path: Path) -> Path:
    file = tmp_path / "dag.yaml"
    file.write_text("dag: ethereum\njobs:\n  ranges: {operater: aggregator}\n")
    return file
