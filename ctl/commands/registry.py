"""How a function becomes a command: its docstring is its help, a paragraph a line, whatever its width in the source."""

import inspect
from collections.abc import Callable
from typing import TypeVar

import typer

Function = TypeVar("Function", bound=Callable[..., None])


def command(app: typer.Typer, name: str) -> Callable[[Function], Function]:
    """Registers the decorated function under this name."""

    def register(function: Function) -> Function:
        app.command(name, help=help_text(function))(function)
        return function

    return register


def help_text(function: Callable[..., None]) -> str:
    """The docstring, its paragraphs on one line each; one that begins with a line of `\\b` stays as it is written."""
    paragraphs = inspect.cleandoc(function.__doc__ or "").split("\n\n")
    return "\n\n".join(text if text.startswith("\b") else text.replace("\n", " ") for text in paragraphs)
