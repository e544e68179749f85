"""What holds for every command that there is, whatever it does: found by walking the tree of commands."""

from collections.abc import Iterator
from typing import Any

import pytest
import typer

from ctl.main import app
from tests.ctl.conftest import Run

WITHOUT_OUTPUT: dict[str, str] = {}
"""Commands that print nothing a program could want, each with the reason. There is none."""


def commands(found: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    below = getattr(found, "commands", None)
    if below is None:
        yield path, found
        return
    for name, command in below.items():
        yield from commands(command, f"{path} {name}".strip())


COMMANDS = dict(commands(typer.main.get_command(app)))


def test_the_tree_is_walked() -> None:
    assert {"up", "down", "query", "task show", "queue set"} <= set(COMMANDS)
    assert set(WITHOUT_OUTPUT) <= set(COMMANDS)


@pytest.mark.parametrize("path", sorted(set(COMMANDS) - set(WITHOUT_OUTPUT)))
def test_every_command_speaks_to_programs_too(path: str) -> None:
    options = {name: parameter for parameter in COMMANDS[path].params for name in parameter.opts}
    assert {"--output", "-o"} <= set(options), f"tracectl {path} takes no --output"
    choices = options["--output"].type_descriptor.choices
    assert {"table", "json"} <= {str(choice.value) for choice in choices}


@pytest.mark.parametrize("path", sorted(COMMANDS))
def test_every_command_has_help_with_examples_of_itself(run: Run, path: str) -> None:
    result = run(*path.split(), "--help")
    assert result.exit_code == 0
    assert "Examples:" in result.stdout
    assert f"tracectl {path}" in result.stdout.partition("Examples:")[2]


@pytest.mark.parametrize("path", sorted(COMMANDS))
def test_every_command_takes_a_home(path: str) -> None:
    assert any("--home" in parameter.opts for parameter in COMMANDS[path].params)


def test_the_help_of_all_names_the_exit_codes(run: Run) -> None:
    assert "Exit codes" in run("--help").stdout
