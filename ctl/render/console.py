"""The two outputs: results on standard output, everything else on standard error.

rich itself honours NO_COLOR and leaves colours out where the output is no terminal.
"""

import errno
import os
import sys

from rich.console import Console, RenderableType
from rich.markup import escape
from rich.theme import Theme

from ctl.errors import CtlError
from ctl.outputs import even_unheard, to_nowhere
from ctl.render.printable import LINES, printable

THEME = Theme(
    {
        "good": "green",
        "active": "cyan",
        "waiting": "yellow",
        "bad": "bold red",
        "gone": "dim",
        "name": "bold",
        "dataset": "magenta",
        "hint": "dim",
    }
)
"""A colour says how something is; the word beside it says so too."""

_WIDTH_OF_A_PIPE = 200
_WIDTH_OF_A_TERMINAL = 80
_LEAST_WIDTH = 20


def stdout() -> Console:
    return _console(stderr=False)


def stderr() -> Console:
    return _console(stderr=True)


def print_error(error: CtlError) -> None:
    """What, where, what to do: on standard error, a line or more each. Messages quote what others wrote."""
    console = stderr()
    with even_unheard(sys.stderr):
        for title, text in (
            ("[bad]error:[/bad]", error.message),
            ("[hint]where:[/hint]", error.where),
            ("[hint]what to do:[/hint]", error.remedy),
        ):
            if text:
                console.print(f"{title} {escape(printable(text, keep=LINES))}", soft_wrap=True)


class _Console(Console):
    """Where nobody reads any more, who prints decides; rich would end the process as faulty."""

    def on_broken_pipe(self) -> None:
        to_nowhere(self.file)
        raise BrokenPipeError(errno.EPIPE, "nobody reads it")


def _console(*, stderr: bool) -> Console:
    """In a pipe the width is that of a wide screen, so that what is cut at 80 columns is not cut for a file."""
    stream = sys.stderr if stderr else sys.stdout
    return _Console(stderr=stderr, theme=THEME, width=_width(stream.isatty()), highlight=False)


def _width(terminal: bool) -> int | None:
    """None where rich shall look; it takes any COLUMNS at its word, also 0."""
    stated = os.environ.get("COLUMNS", "")
    if stated.isdigit() and int(stated):
        return max(int(stated), _LEAST_WIDTH)
    if not terminal:
        return _WIDTH_OF_A_PIPE
    return _WIDTH_OF_A_TERMINAL if stated.isdigit() else None


def print_list(body: RenderableType, count: int, *, more: bool, what: str) -> None:
    """A list on standard output; that it is empty or goes on, on standard error."""
    if count:
        stdout().print(body)
    if more:
        stderr().print(f"[hint]{count:,} shown, there are more {what}: --limit 0 lists all[/hint]")
    elif not count:
        stderr().print(f"[hint]no {what}[/hint]")
