"""Who owns a home: the lock, the record of its processes, and what to do with what a crashed owner left."""

import errno
import fcntl
import json
import os
import socket
from collections.abc import Callable, Mapping

from ctl.errors import CtlError
from ctl.home import Home
from ctl.local.processes import ProcessIdentity, stop_process
from ctl.local.programs import Addresses

Report = Callable[[str], None]
"""Takes a line for people."""

SUPERVISOR = "supervisor"
STOP_ORDER = ("wrapper", "queryd", "dispatcher")
"""Postgres, which all depend on, ends after them."""

_GRACE = 20.0


def take_lock(home: Home) -> int:
    """The lock of the home, whose folders are there, as a descriptor that holds it.

    Raises CtlError naming the stack that has it.
    """
    fd = os.open(home.lock_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        owner = os.pread(fd, 32, 0).decode(errors="replace").strip() or "unknown"
        os.close(fd)
        raise CtlError(
            f"a stack runs on {home.root} already (process {owner})",
            remedy=f"use it as it is (tracectl status{home.option()}), stop it (tracectl down{home.option()}),"
            " or start this one on another home (--home DIR --port 0)",
        ) from None
    os.ftruncate(fd, 0)
    os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
    return fd


def read_processes(home: Home) -> Mapping[str, ProcessIdentity]:
    """The processes of the home's running or last stack, by program; empty where nothing is recorded."""
    try:
        document = json.loads(home.processes_file.read_text())
        return {str(name): ProcessIdentity.from_json(entry) for name, entry in document.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def stop_leftovers(home: Home, report: Report) -> int:
    """Ends what a crashed run left; answers how many. Only for who has the lock."""
    stopped = 0
    found = read_processes(home)
    for name in (*STOP_ORDER, "postgres"):
        if name in found and stop_process(found[name], grace=_GRACE, group=True):
            report(f"stopped {name} (process {found[name].pid}), left over from an earlier run")
            stopped += 1
    home.endpoints_file.unlink(missing_ok=True)
    return stopped


def check_ports_free(addresses: Addresses) -> None:
    """Raises CtlError naming every wanted port that is taken."""
    taken = [address for address in (addresses.control, addresses.internal, addresses.query) if not _is_free(address)]
    if taken:
        raise CtlError(
            f"in use by another program: {', '.join(taken)}",
            remedy="choose other ports: --port N takes N, N+1 and N+2, --port 0 takes free ones",
        )


def _is_free(address: str) -> bool:
    host, _, port = address.rpartition(":")
    if port == "0":
        return True
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, int(port)))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return False
            raise CtlError(f"cannot listen on {address}: {error.strerror}", remedy="choose another --port") from error
    return True
