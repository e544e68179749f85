"""Writes docs/reference/settings.md from the programs' settings: `python -m tools.settings_page FOLDER`."""

import sys
from collections.abc import Iterator
from pathlib import Path

from dispatcher.config import DispatcherConfig
from kernel.command_line import command_of, example_file
from kernel.settings import Setting, meanings_of, settings_of
from queryd.config import QuerydConfig
from wrapper.config import WrapperConfig

OUTPUT = Path("docs/reference/settings.md")
PROGRAMS: tuple[tuple[str, type], ...] = (
    ("dispatcher", DispatcherConfig),
    ("wrapper", WrapperConfig),
    ("queryd", QuerydConfig),
)

_OPENING = """\
<!-- Generated from dispatcher/config.py, wrapper/config.py and queryd/config.py by `make generate`. Do not edit. -->
# Settings

Each program reads the table of its name in the TOML file that `--config FILE` names, and then the environment, which
wins; an empty variable counts as unset. One file may serve all programs. A list is a TOML list, and in a variable its
parts stand between commas.

`--help` prints what stands here, `--check` reads and checks the settings and shows where each comes from, secrets as
stars. A faulty configuration ends the program with exit code 2 and all its faults; nothing is connected to before.
"""


def page() -> str:
    """All programs, each with its settings and an example."""
    return "\n".join([_OPENING, *(line for program, cls in PROGRAMS for line in _program(program, cls))])


def _program(program: str, cls: type) -> Iterator[str]:
    meanings = meanings_of(cls)
    yield f"## {command_of(program)}\n"
    yield "| setting, variable | type | default | meaning |\n|---|---|---|---|"
    yield from (_row(setting, meanings[setting.name]) for setting in settings_of(cls))
    yield f"\n```toml\n{example_file(cls, program)}```\n"
    yield f"```\n{command_of(program)} --config /etc/trace/trace.toml\n```\n"


def _row(setting: Setting, meaning: str) -> str:
    default = setting.default_text if setting.required else f"`{setting.default_text}`"
    cells = (f"`{setting.name}` `{setting.variable}`", setting.type_text, default, meaning)
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def main(folder: str) -> None:
    """Write the page below `folder`, at its path in the tree."""
    target = Path(folder) / OUTPUT
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
