"""The command line that the programs have in common: `--config`, `--check`, `--version`, and a help that lists every
setting. Reads the configuration; starts nothing.
"""

import argparse
import importlib.metadata
import os
import shutil
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from kernel.config import ConfigError, Loaded, read_config
from kernel.likeness import nearest
from kernel.settings import PREFIX, Setting, meanings_of, settings_of, value_text

T = TypeVar("T")

_DISTRIBUTION = "trace-pipelines"
_FAULTY = 2
_INDENT = " " * 6
# So like a setting that it is meant to be one. Other programs' variables have the same prefix.
_MISSPELT = 0.9


def configure(
    cls: type[T],
    *,
    program: str,
    purpose: str,
    arguments: Sequence[str] | None = None,
    environ: Mapping[str, str] | None = None,
) -> T:
    """The configuration, as command line, file and environment give it.

    SystemExit 2 for a faulty one, with all faults on standard error; 0 after --help, --version and --check.
    """
    environ = os.environ if environ is None else environ
    parser = argparse.ArgumentParser(
        prog=command_of(program),
        description=purpose,
        epilog=f"{settings_text(cls, program)}\n\n{example_text(cls, program)}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help=f"TOML file with a table [{program}]; TRACE_ variables override it"
    )
    parser.add_argument(
        "--check", action="store_true", help="read and check the settings, show them without secrets, start nothing"
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {_version()}")
    chosen = parser.parse_args(arguments)
    try:
        loaded = read_config(cls, program=program, environ=environ, toml_path=chosen.config)
    except ConfigError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(_FAULTY)
    if chosen.check:
        sys.stdout.write(report(loaded, settings_of(cls), program, environ))
        sys.exit(0)
    return loaded.config


def command_of(program: str) -> str:
    """How a program is called in a shell."""
    return f"trace-{program}"


def report(loaded: Loaded[T], settings: Sequence[Setting], program: str, environ: Mapping[str, str]) -> str:
    """Every setting with its value, secrets as stars, and where it comes from; and what looks misspelt."""
    rows = [
        (setting.name, value_text(getattr(loaded.config, setting.name)), loaded.sources[setting.name])
        for setting in settings
    ]
    names, values = (max(len(row[column]) for row in rows) for column in (0, 1))
    lines = [f"{command_of(program)}: the settings can be used", ""]
    lines += [f"  {name:{names}}  {value:{values}}  {source}" for name, value, source in rows]
    lines += [f"  note: {note}" for note in _misspelt(settings, environ)]
    lines += ["", "Not asked: the database, the artifact store, other programs."]
    return "\n".join(lines) + "\n"


def _misspelt(settings: Sequence[Setting], environ: Mapping[str, str]) -> Iterator[str]:
    variables = {setting.variable for setting in settings}
    for name in sorted(environ.keys() - variables):
        if name.startswith(PREFIX) and (like := nearest(name, variables, _MISSPELT)):
            yield f"{name} is no setting of this program{like}"


def settings_text(cls: type, program: str) -> str:
    """Every setting, for a terminal."""
    width = min(shutil.get_terminal_size().columns, 120) - 2
    meanings = meanings_of(cls)
    parts = [f"settings, in [{program}] of FILE and in the environment:"]
    for setting in settings_of(cls):
        default = "required" if setting.required else f"default {setting.default_text}"
        meaning = textwrap.wrap(
            meanings.get(setting.name, ""), width, initial_indent="  " * 3, subsequent_indent="  " * 3
        )
        head = f"  {setting.name}, {setting.variable}\n      {setting.type_text}; {default}"
        parts.append("\n".join([head, *meaning]))
    return "\n\n".join(parts)


def example_text(cls: type, program: str) -> str:
    """An example file and the command for it, for a terminal."""
    file = textwrap.indent(example_file(cls, program), "  ")
    return f"example, trace.toml:\n\n{file}\n  {command_of(program)} --config trace.toml --check"


def example_file(cls: type, program: str) -> str:
    """The table of an example file: what must be set, and what another machine's callers need."""
    lines = [f"{setting.name} = {setting.example.toml}" for setting in settings_of(cls) if setting.example]
    return "\n".join([f"[{program}]", *lines]) + "\n"


def _version() -> str:
    return importlib.metadata.version(_DISTRIBUTION)
