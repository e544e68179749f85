"""Asks a person before something is done that others notice."""

import sys

import typer

from ctl.errors import CtlError, ExitCode


def confirm(question: str, *, yes: bool, remedy: str) -> None:
    """Raises CtlError (usage) where nobody can be asked, and typer.Abort for a no."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise CtlError(f"nobody can be asked: {question}", remedy=remedy, exit_code=ExitCode.USAGE)
    typer.confirm(question, abort=True, err=True)
