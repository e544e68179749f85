"""The list of everything in the tree that a program writes, and how each is made.

`make generate` and `make verify` both read it. To add one: write a command that puts its outputs below the folder
`{out}`, at the same paths as in the tree, and add a line to `GENERATED`.
"""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NODE_MODULES = ROOT / "clients" / "typescript" / "node_modules"


# What TypeScript has of Arrow Flight comes with its own libraries.
_FLIGHT = "protos/vendor/arrow_flight"


@dataclass(frozen=True, slots=True)
class Generated:
    """One generated part of the tree."""

    name: str
    outputs: tuple[str, ...]
    """Files, or folders in which nothing else may stand; relative to the root of the tree."""
    command: tuple[str, ...]
    """Run in the root of the tree, with PATH as `search_path` says; `{out}` is the folder to write below."""
    needs: tuple[str, ...] = ()
    """The programs without which this part cannot be made."""


GENERATED = (
    Generated("python", ("gen/python",), ("buf", "generate", "--output", "{out}")),
    Generated(
        "typescript",
        ("gen/typescript",),
        ("buf", "generate", "--template", "buf.gen.typescript.yaml", "--exclude-path", _FLIGHT, "--output", "{out}"),
        needs=("node", "protoc-gen-es"),
    ),
    Generated("errors", ("docs/reference/errors.md",), ("python", "-m", "tools.errors_page", "{out}")),
    Generated("states", ("docs/reference/task_states.md",), ("python", "-m", "tools.states_page", "{out}")),
    Generated("sql", ("docs/reference/sql.md",), ("python", "-m", "tools.sql_page", "{out}")),
    Generated("settings", ("docs/reference/settings.md",), ("python", "-m", "tools.settings_page", "{out}")),
    Generated("tracectl", ("docs/reference/tracectl.md",), ("python", "-m", "ctl.reference", "{out}")),
)


class GenerationError(Exception):
    """A command ended with an error, or without one of its outputs."""


def search_path() -> str:
    """PATH with .venv's and the TypeScript client's programs first."""
    return os.pathsep.join([str(Path(sys.executable).parent), str(NODE_MODULES / ".bin"), os.environ.get("PATH", "")])


def missing_program(part: Generated) -> str | None:
    """What to install before this part can be made, or None when it can be."""
    return next((program for program in part.needs if not shutil.which(program, path=search_path())), None)


def make(part: Generated, out: Path) -> None:
    """Write the part's outputs below `out`."""
    command = [word.replace("{out}", str(out)) for word in part.command]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, "PATH": search_path()}, check=False)
    if done.returncode != 0:
        raise GenerationError(f"{part.name}: `{' '.join(part.command)}` ended with status {done.returncode}")
    for output in part.outputs:
        if not (out / output).exists():
            raise GenerationError(f"{part.name}: `{' '.join(part.command)}` did not write {output}")


def files_of(part: Generated, root: Path) -> dict[str, bytes]:
    """Every file of the part below `root`, by its path; Python's caches are not part of anything."""
    found: dict[str, bytes] = {}
    for output in part.outputs:
        start = root / output
        candidates = start.rglob("*") if start.is_dir() else [start]
        for path in candidates:
            if path.is_file() and "__pycache__" not in path.parts:
                found[path.relative_to(root).as_posix()] = path.read_bytes()
    return found
