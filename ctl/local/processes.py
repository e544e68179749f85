"""Processes by an identity that outlives them: told apart from later ones of the same number, and stopped for certain.

A pid alone is no identity: after a crash it may name somebody else's process. A pid with its start time and the boot in
which that counts is one. Signals go through a pidfd that was opened *before* the identity was compared, so that the
process cannot be exchanged in between.
"""

import contextlib
import os
import select
import signal
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class ProcessIdentity:
    """One process of this machine, for ever."""

    pid: int
    start_time: int
    """Clock ticks after the boot: field 22 of /proc/PID/stat."""
    boot_id: str

    @classmethod
    def of(cls, pid: int) -> "ProcessIdentity | None":
        """The identity of a living process; None when there is none of that number, or only its zombie."""
        start_time = _start_time(pid)
        return None if start_time is None else cls(pid, start_time, _boot_id())

    @classmethod
    def from_json(cls, document: Any) -> "ProcessIdentity":
        return cls(int(document["pid"]), int(document["start_time"]), str(document["boot_id"]))

    def to_json(self) -> dict[str, int | str]:
        return asdict(self)

    def is_alive(self) -> bool:
        return ProcessIdentity.of(self.pid) == self


def stop_process(identity: ProcessIdentity, *, grace: float, group: bool = False) -> bool:
    """Ends a process: SIGTERM, after `grace` seconds SIGKILL. True when it lived and has ended; False when it was gone.

    With `group`, SIGKILL goes to its whole process group, which it must lead: what it started ends with it.
    """
    with _pidfd(identity) as fd:
        if fd is None:
            return False
        signal.pidfd_send_signal(fd, signal.SIGTERM)
        if wait_for_end(fd, grace):
            return True
        if group and os.getpgid(identity.pid) == identity.pid:
            os.killpg(identity.pid, signal.SIGKILL)
        else:
            signal.pidfd_send_signal(fd, signal.SIGKILL)
        return wait_for_end(fd, 10.0)


def send_signal(identity: ProcessIdentity, number: signal.Signals) -> bool:
    """Sends it, if that very process lives."""
    with _pidfd(identity) as fd:
        if fd is None:
            return False
        signal.pidfd_send_signal(fd, number)
        return True


def wait_until_gone(identity: ProcessIdentity, timeout: float) -> bool:
    """True once that process has ended."""
    with _pidfd(identity) as fd:
        return fd is None or wait_for_end(fd, timeout)


def wait_for_end(pidfd: int, timeout: float) -> bool:
    """True once the process behind the descriptor has ended (a pidfd becomes readable then)."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    deadline = time.monotonic() + timeout
    while True:
        remaining = max(0.0, deadline - time.monotonic())
        if poll.poll(remaining * 1000):
            return True
        if remaining == 0.0:
            return False


def tail(path: Path, *, from_byte: int = 0, lines: int = 15) -> str:
    """The last lines of a log, of what was written after `from_byte`; empty where there is none."""
    try:
        with path.open("rb") as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(max(from_byte, end - 65536))
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    return "\n".join(text.rstrip().splitlines()[-lines:])


@contextlib.contextmanager
def _pidfd(identity: ProcessIdentity) -> Any:
    """A descriptor of that very process; None when it has ended."""
    try:
        fd = os.pidfd_open(identity.pid)
    except ProcessLookupError:
        yield None
        return
    try:
        yield fd if identity.is_alive() else None
    finally:
        os.close(fd)


def _start_time(pid: int) -> int | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return None
    # The name, in parentheses, may hold blanks and parentheses itself: count from the last one.
    fields = text[text.rindex(")") + 2 :].split()
    return None if fields[0] in "ZX" else int(fields[19])


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
