"""Writes the reference of the command line, `docs/reference/tracectl.md`, from the commands themselves.

`python -m ctl.reference FOLDER` writes it below that folder, as `tools/generated.py` wants it.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from ctl.main import app

_PATH = Path("docs") / "reference" / "tracectl.md"


def reference() -> str:
    """The whole page."""
    root = typer.main.get_command(app)
    parts = [
        "<!-- Generated from ctl/ by `make generate`. -->",
        "# tracectl",
        *_help(root.help or ""),
        "Every command that reads takes `--output json`: the contract's message in protobuf's canonical JSON"
        " (lowerCamelCase names, 64-bit integers as strings), and nothing else on standard output. Errors go to"
        " standard error: what, where, what to do. `NO_COLOR` is respected.",
    ]
    for name, command in _commands(root, ""):
        parts += [f"## tracectl {name}", *_help(command.help or ""), *_parameters(command)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _commands(group: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    for name, command in group.commands.items():
        path = f"{prefix}{name}"
        if hasattr(command, "commands"):
            yield from _commands(command, f"{path} ")
        else:
            yield path, command


def _help(text: str) -> Iterator[str]:
    """Prose as it is; what begins with `\\b`, a title with indented lines below, becomes a block of code."""
    for paragraph in text.split("\n\n"):
        if not paragraph.startswith("\b"):
            yield paragraph.strip().replace("\n", " ")
            continue
        title, *lines = paragraph.removeprefix("\b").strip("\n").splitlines()
        code = "\n".join(line.removeprefix("  ") for line in lines)
        yield f"{title}\n\n```\n{code}\n```"


def _parameters(command: Any) -> Iterator[str]:
    rows = [_row(parameter) for parameter in command.params if parameter.name not in ("help",)]
    if rows:
        yield "\n".join(["| | default | |", "|---|---|---|", *rows])


def _row(parameter: Any) -> str:
    names = ", ".join(f"`{name}`" for name in parameter.opts if name.startswith("-")) or f"`{parameter.metavar}`"
    help_text = (parameter.help or "").replace("|", "\\|")
    variable = f" Environment: `{parameter.envvar}`." if parameter.envvar else ""
    return f"| {names} | {_default(parameter)} | {help_text}{variable} |"


def _default(parameter: Any) -> str:
    default = parameter.default
    if parameter.required or default is None or default is False or default == "":
        return ""
    return f"`{getattr(default, 'value', default)}`"


def main() -> None:
    path = Path(sys.argv[1]) / _PATH
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(reference())


if __name__ == "__main__":
    main()
