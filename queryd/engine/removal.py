"""The removal of what a cell has left: however deep, and whatever its rights."""

import os
from itertools import count
from pathlib import Path

from kernel.telemetry import get_logger

_log = get_logger("queryd.removal")


def remove_tree(root: Path) -> None:
    """Without recursion and without long paths, of which a query may make any: each folder that is found is moved up
    into the root. What cannot be removed is a warning, and keeps nobody from starting or ending."""
    failed: OSError | None = None
    pending, numbers = [root], count()
    emptied = list[Path]()
    while pending:
        folder = pending.pop()
        emptied.append(folder)
        try:
            folder.chmod(0o700)
            with os.scandir(folder) as entries:
                found = [(Path(entry.path), entry.is_dir(follow_symlinks=False)) for entry in entries]
        except OSError as error:
            failed = error
            continue
        for path, is_folder in found:
            try:
                if is_folder:
                    pending.append(path if folder == root else _moved(path, root, numbers))
                else:
                    path.unlink()
            except OSError as error:
                failed = error
    for folder in reversed(emptied):
        try:
            folder.rmdir()
        except OSError as error:
            failed = error
    if failed is not None and root.exists():
        _log.warning("a folder cannot be removed", folder=str(root), error=str(failed))


def _moved(folder: Path, root: Path, numbers: "count[int]") -> Path:
    """Its new place, which nothing had."""
    folder.chmod(0o700)  # or its entry ".." could not be changed
    place = next(place for number in numbers if not os.path.lexists(place := root / f"moved-{number}"))
    return folder.rename(place)
