"""The wall around a fork: namespaces of its own, its own folder, nothing else that can be written, no capability.

It is raised by the fork itself before it is given anything, within the sandbox of the process that it was forked of
(queryd/engine/zygote.py). There the system and the code are read-only, and so is the store where it is on disk. Here it
loses the sight of other cells' folders and of /proc, gets process, network and IPC namespaces of its own, and then,
with the user namespace's capabilities, the means to undo any of it. Nothing that it writes or is given is run as code.

Linux only, by ctypes: Python has no mount(2), no capset(2), and before 3.12 no unshare(2).
"""

import ctypes
import os
import signal
from pathlib import Path

STORE, SCRATCH, CELLS, NOTHING = "/artifacts", "/scratch", "/cells", "/nothing"
"""Where a cell sees the store and its own folder to write into; where the process that forks it sees all cells'
folders; an empty folder."""

_NEW_NAMESPACES = {
    "user": 0x10000000,
    "mount": 0x00020000,
    "pid": 0x20000000,
    "network": 0x40000000,
    "ipc": 0x08000000,
    "uts": 0x04000000,
}
_READ_ONLY, _NO_SUID, _NO_DEVICES, _NO_PROGRAMS, _REMOUNT, _BIND = 1, 2, 4, 8, 32, 4096
_SET_PARENT_DEATH_SIGNAL, _SET_NO_NEW_PRIVILEGES, _DROP_BOUNDING = 1, 38, 24
_CAPABILITY_VERSION_3 = 0x20080522
_KILL = 9
_OUT_OF_MEMORY_SCORE = "500"  # as if half of the machine's memory were its own

_libc = ctypes.CDLL(None, use_errno=True)


def leave_namespaces(uid: int, gid: int) -> None:
    """The process, of one thread, leaves those that it shares with others; its next fork is the first process of new
    ones. `uid` and `gid` are its own. Raises OSError."""
    flags = 0
    for flag in _NEW_NAMESPACES.values():
        flags |= flag
    _call("unshare", flags)
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")
    Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")


def raise_wall(name: str, *, own_files: bool) -> None:
    """Of the fork: it sees its own folder, and the files in it as the store where `own_files`. Raises OSError."""
    folder = f"{CELLS}/{name}"
    _bind(f"{folder}/scratch", SCRATCH)
    _restrict(SCRATCH)
    if own_files:
        _bind(f"{folder}/files", STORE)
    _restrict(STORE, _READ_ONLY)
    for hidden in (CELLS, "/proc"):
        _bind(NOTHING, hidden)
    _drop_capabilities()
    die_with_parent()


def die_with_parent() -> None:
    """Raises OSError."""
    _call("prctl", _SET_PARENT_DEATH_SIGNAL, _KILL, 0, 0, 0)


def end_at_abort() -> None:
    """To the first process of a namespace its own SIGABRT is not delivered, so abort(3) goes on until it breaks with
    another signal. With this it exits with that signal's number instead."""
    _libc.signal.restype = ctypes.c_void_p
    _libc.signal(signal.SIGABRT, _libc._exit)


def die_first() -> None:
    """Where the machine's memory is short: before queryd, and before the process that others are forked of too. While
    /proc is there. Raises OSError."""
    Path("/proc/self/oom_score_adj").write_text(_OUT_OF_MEMORY_SCORE)


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


def _drop_capabilities() -> None:
    """All of this user namespace: no program with rights of its own brings them back. In a user namespace that it
    makes itself the fork has capabilities again, over what is in that one alone."""
    _call("prctl", _SET_NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    for capability in range(64):
        if _libc.prctl(_DROP_BOUNDING, capability, 0, 0, 0) != 0:
            break  # the kernel knows no more
    header, none = _Header(_CAPABILITY_VERSION_3, 0), (ctypes.c_uint32 * 6)()
    _call("capset", ctypes.byref(header), none)


def _bind(source: str, place: str) -> None:
    _call("mount", os.fsencode(source), os.fsencode(place), None, _BIND, None)


def _restrict(place: str, flags: int = 0) -> None:
    """What lies there is neither run nor loaded as code. Flags that the mount has already must be among these."""
    flags |= _BIND | _REMOUNT | _NO_SUID | _NO_DEVICES | _NO_PROGRAMS
    _call("mount", None, os.fsencode(place), None, flags, None)


def _call(name: str, *arguments: object) -> None:
    if getattr(_libc, name)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
