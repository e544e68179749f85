"""A cell's process as its starter left it: how it is killed, and with what it ended."""

import contextlib
import os
import select
import signal
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from queryd.engine.sandbox import ENVIRONMENT, CellFolder, Sandbox


class Process(Protocol):
    """For one thread, but `kill`."""

    @property
    def pid(self) -> int: ...

    @property
    def forsaken(self) -> bool:
        """Whether, as far as `wait` has heard, it ended because the one that it was forked of did."""

    def kill(self) -> None:
        """At once, whatever it does. Nothing where it has ended. Not after `close`."""

    def wait(self, seconds: float) -> int | None:
        """Its exit code, the negative number of its signal, or None where it has not ended in time."""

    def close(self) -> None:
        """Lets go of what is known of it."""


class Given(NamedTuple):
    """The descriptors that a cell is given: its standard streams, the memory that it shares with queryd, and where it
    asks for ranges of files."""

    requests: int
    answers: int
    stderr: int
    slots: int
    ranges: int


Start = Callable[[CellFolder, Given], Process]
"""Starts a cell with this folder and these descriptors; the caller keeps and closes its own copies of them. Raises
OSError."""


class FreshProcess:
    """Started from its program; everything in it is loaded anew."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self._process = process

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def forsaken(self) -> bool:
        return False

    def kill(self) -> None:
        if self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def wait(self, seconds: float) -> int | None:
        try:
            code = self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None
        return 128 - code if code > 128 else code  # a sandbox tells signals as shells do

    def close(self) -> None:
        return None


def fresh(sandbox: Sandbox) -> Start:
    """A program for each cell."""

    def start(folder: CellFolder, given: Given) -> Process:
        return FreshProcess(
            subprocess.Popen(
                [*sandbox.command(folder), str(given.slots), str(given.ranges)],
                stdin=given.requests,
                stdout=given.answers,
                stderr=given.stderr,
                cwd=folder.scratch,
                env=ENVIRONMENT,
                pass_fds=(given.slots, given.ranges),
                start_new_session=True,
            )
        )

    return start


@dataclass(slots=True)
class ForkedProcess:
    """A fork of another one's child: known by a descriptor of the process, and by a pipe that tells its end.

    `crashed` is called when it is heard that it broke.
    """

    pid: int
    descriptor: int
    status: int
    crashed: Callable[[], None]
    forsaken: bool = False
    _code: int | None = None

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.descriptor, signal.SIGKILL)

    def wait(self, seconds: float) -> int | None:
        if self._code is None and self._is_told(seconds):
            told = os.read(self.status, 16)
            self.forsaken = not told  # who should have told it is gone; then so is the process
            self._code = _exit_code(int(told)) if told else -signal.SIGKILL
            if self._code < 0 and self._code != -signal.SIGKILL:
                self.crashed()
        return self._code

    def close(self) -> None:
        os.close(self.descriptor)
        os.close(self.status)

    def _is_told(self, seconds: float) -> bool:
        poll = select.poll()  # select(2) knows no descriptor from 1,024 on
        poll.register(self.status, select.POLLIN)
        return bool(poll.poll(seconds * 1000))


def _exit_code(status: int) -> int:
    """As of `Process.wait`. A fork that aborts exits with SIGABRT's number (queryd/engine/wall.py)."""
    code = os.waitstatus_to_exitcode(status)
    return -signal.SIGABRT if code == signal.SIGABRT else code
