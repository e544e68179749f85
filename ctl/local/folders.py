"""The folders of a home, open to their owner alone: credentials, data, logs and Postgres' socket lie in it.

A home that others may enter is closed to them, where everything in it is a stack's: there were such ones before. A
folder that holds anything else is never changed (`--home /tmp` must not close /tmp), it is refused.
"""

import os
import stat
from pathlib import Path

from ctl.errors import CtlError
from ctl.home import Home
from ctl.local.ownership import Report

_OF_A_STACK = frozenset(
    {"artifacts", "artifacts.url", "credentials", "demo", "endpoints.json", "logs", "run", "wrapper"}
)


def make_folders(home: Home, report: Report) -> None:
    """Makes what is missing with mode 0700. Raises CtlError where it cannot be used or closed to others."""
    try:
        home.root.parent.mkdir(parents=True, exist_ok=True)
        home.root.mkdir(mode=0o700, exist_ok=True)
        _close(home.root, report)
        for folder in (home.run, home.logs):
            folder.mkdir(mode=0o700, exist_ok=True)
            folder.chmod(0o700)
    except OSError as error:
        raise CtlError(
            f"cannot use {home.root} as a home: {error.strerror}",
            where=str(error.filename),
            remedy="name a folder that you may write to: --home DIR",
        ) from None


def _close(root: Path, report: Report) -> None:
    status = root.stat()
    mode = stat.S_IMODE(status.st_mode)
    if status.st_uid != os.geteuid():
        raise CtlError(
            f"{root} cannot be a home: the folder belongs to another user",
            remedy="name a folder of your own (--home DIR), or run tracectl as that user",
        )
    if not mode & 0o077:
        return
    others = sorted(entry.name for entry in root.iterdir() if not _is_of_a_stack(entry.name))
    if others:
        raise CtlError(
            f"{root} cannot be a home: others may enter it (mode {mode:04o}), and it holds more than a stack"
            f" ({others[0]}{', ...' if len(others) > 1 else ''})",
            remedy="name a folder for the stack alone, which is made when it is missing: --home DIR",
        )
    root.chmod(0o700)
    if (root / "credentials").exists():
        report(f"closed {root} to other users: its mode was {mode:04o}")


def _is_of_a_stack(name: str) -> bool:
    return name in _OF_A_STACK or name.startswith(("postgres", ".endpoints.json.", ".artifacts.url."))
