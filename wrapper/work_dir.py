"""The worker's scratch folder: wiped at start, for what lies there belongs to a process that is gone; held by one
worker at a time."""

import fcntl
import hashlib
import os
import shutil
import stat
from dataclasses import dataclass
from pathlib import Path

_SOCKET_NAME_BYTES = len("/1234567890.sock")
_MAX_SOCKET_PATH_BYTES = 107  # of sockaddr_un, without its final zero


class WorkDirError(Exception):
    """The folder cannot be used; the message says why."""


@dataclass(frozen=True, slots=True)
class WorkDir:
    """The folders below the scratch folder, empty at first. `sockets` may lie elsewhere, where its path would be too
    long."""

    outputs: Path
    bundles: Path
    sockets: Path
    _lock: int

    def close(self) -> None:
        """Removes what is left and lets go of the folder."""
        for folder in (self.outputs, self.bundles, self.sockets):
            _remove(folder)
        os.close(self._lock)


def open_work_dir(root: Path) -> WorkDir:
    """Takes the folder and wipes what a former worker left in it; nothing else in there is touched."""
    root = root.absolute()
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = os.open(root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(lock)
        raise WorkDirError(f"{root} is in use by another worker: give each its own TRACE_WORK_DIR") from error
    sockets = root / "sockets"
    if len(os.fsencode(sockets)) + _SOCKET_NAME_BYTES > _MAX_SOCKET_PATH_BYTES:
        sockets = _short_folder(root)
    for folder in (root / "outputs", root / "bundles", sockets):
        _remove(folder)
        folder.mkdir(mode=0o700)
    return WorkDir(root / "outputs", root / "bundles", sockets, lock)


def _short_folder(root: Path) -> Path:
    """A folder with a short path, the same for the same root, that nobody else can have prepared."""
    name = hashlib.sha256(os.fsencode(root)).hexdigest()[:16]
    folder = Path(f"/tmp/trace-{os.getuid()}-{name}")  # noqa: S108 -- its owner and mode are checked
    folder.mkdir(mode=0o700, exist_ok=True)
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o077:
        raise WorkDirError(f"{folder} belongs to somebody else: choose a TRACE_WORK_DIR with a shorter path")
    return folder


def _remove(folder: Path) -> None:
    """Removes a folder, also where what it holds is read-only."""
    if not folder.exists():
        return
    for parent, _, _ in os.walk(folder):
        Path(parent).chmod(0o700)
    shutil.rmtree(folder)
