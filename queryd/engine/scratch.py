"""The folder of cells' private folders and of copied files: one for each queryd, gone with it, also after a kill."""

import fcntl
import os
import tempfile
from pathlib import Path

from queryd.engine.removal import remove_tree

_PREFIX = "trace-queryd-"


class ScratchFolder:
    """A new folder in `parent`, by default the system's place for temporary files. Locked while it is used, so that
    others know it is."""

    def __init__(self, parent: Path | None = None) -> None:
        """Also removes what queryds left behind that were killed: folders of this user that nobody locks."""
        place = parent or Path(tempfile.gettempdir())
        for folder in place.glob(f"{_PREFIX}*"):
            _remove_stale(folder)
        self.path, self._lock = _new_folder(place)

    def remove(self) -> None:
        """Can be repeated."""
        remove_tree(self.path)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def _new_folder(place: Path) -> tuple[Path, int | None]:
    """Another queryd that starts may take the folder for a stale one until it is locked; then there is a next one."""
    while True:
        path = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=place))
        try:
            lock = _locked(path)
        except FileNotFoundError:
            continue
        if lock is not None and path.exists():
            return path, lock


def _remove_stale(folder: Path) -> None:
    try:
        lock = _locked(folder) if folder.stat(follow_symlinks=False).st_uid == os.geteuid() else None
    except OSError:
        return
    if lock is not None:
        remove_tree(folder)
        os.close(lock)


def _locked(folder: Path) -> int | None:
    """A descriptor that locks the folder until it is closed, or its process ends; None where another one locks it."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor
