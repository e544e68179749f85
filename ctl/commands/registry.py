"""How a function becomes a command: its docstring is its help, and what is given to it is text.

A paragraph of the docstring is a line of the help, whatever its width in the source.
"""

import inspect
from collections.abc import Callable
from typing import Any, TypeVar

import typer
from typer.core import TyperCommand

from ctl.errors import CtlError, ExitCode

Function = TypeVar("Function", bound=Callable[..., None])


class TextCommand(TyperCommand):
    """Refuses what is given empty, which is a shell's unset variable: as no value it would mean all, or the default.

    And what is not UTF-8, which no message of the contracts can carry.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        given, _, _ = self.make_parser(ctx).parse_args(list(args))
        for parameter in self.get_params(ctx):
            values = given.get(parameter.name)
            for value in values if isinstance(values, (list, tuple)) else [values]:
                if isinstance(value, str):
                    _check_text(parameter, value)
        return super().parse_args(ctx, args)


def command(app: typer.Typer, name: str) -> Callable[[Function], Function]:
    """Registers the decorated function under this name."""

    def register(function: Function) -> Function:
        app.command(name, cls=TextCommand, help=help_text(function))(function)
        return function

    return register


def help_text(function: Callable[..., None]) -> str:
    """The docstring, its paragraphs on one line each; one that begins with a line of `\\b` stays as it is written."""
    paragraphs = inspect.cleandoc(function.__doc__ or "").split("\n\n")
    return "\n\n".join(text if text.startswith("\b") else text.replace("\n", " ") for text in paragraphs)


def _check_text(parameter: Any, value: str) -> None:
    """Raises CtlError (usage). Paths are bytes to this system, and may be what they are."""
    option = parameter.param_type_name == "option"
    name = max(parameter.opts, key=len) if option else parameter.metavar
    if not value:
        remedy = "leave it out, or give it a value" if option else "give it a value; see --help"
        raise CtlError(f"{name} is empty", remedy=remedy, exit_code=ExitCode.USAGE)
    if not parameter.type_descriptor.is_path and any("\ud800" <= letter <= "\udfff" for letter in value):
        raise CtlError(f"{name} is not UTF-8: {value!r}", remedy="write it in UTF-8", exit_code=ExitCode.USAGE)
