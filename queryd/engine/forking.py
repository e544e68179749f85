"""queryd's side of the process that cells are forked of (queryd/engine/zygote.py)."""

import contextlib
import os
import select
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

from queryd.engine.processes import ForkedProcess, Given, Process
from queryd.engine.sandbox import CellFolder, Sandbox

START_SECONDS = 30.0
"""How long it may take to load everything."""
_LONGEST_ANSWER = 512
_FORK_SECONDS = 10.0
_END_SECONDS = 10.0
_STDERR_TAIL = 500


class ZygoteLostError(OSError):
    """It has ended, or does not answer as it should: nothing more can be asked of it. Its cells may go on."""


class Zygote:
    """One of them. `kill` may be called from any thread; all else belongs to the thread that made it, with whose end it
    ends."""

    def __init__(self, sandbox: Sandbox, folder: Path) -> None:
        """Starts it; `folder` has the cells' folders. It is not ready before `wait_ready` returns. Raises OSError."""
        assert sandbox.zygote is not None  # noqa: S101 - who makes one has looked
        with contextlib.ExitStack() as undo:
            self._stderr = undo.enter_context(tempfile.TemporaryFile())
            self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            undo.enter_context(self._socket)
            with theirs:
                self._process = subprocess.Popen(
                    sandbox.zygote(folder, theirs.fileno()),
                    stdin=subprocess.DEVNULL,
                    stdout=self._stderr,
                    stderr=self._stderr,
                    cwd="/",
                    env={},
                    pass_fds=(theirs.fileno(),),
                    start_new_session=True,
                )
            self._left = undo.pop_all()
        self._begun = time.monotonic()
        self.forks = 0
        """How many it was asked for."""
        self.has_crashed = False
        """Whether a cell broke: it ended by a signal other than that by which cells are ended."""

    @property
    def has_ended(self) -> bool:
        return self._process.poll() is not None

    @property
    def is_due(self) -> bool:
        """Whether `wait_ready` has something to hear: that it is ready, or has ended, or had time enough."""
        poll = select.poll()  # select(2) knows no descriptor from 1,024 on
        poll.register(self._socket, select.POLLIN)
        return bool(poll.poll(0)) or time.monotonic() - self._begun > START_SECONDS

    def wait_ready(self, seconds: float = START_SECONDS) -> None:
        """Returns when it has loaded everything. Raises OSError, with its last words."""
        try:
            self._hear(b"", b"ready", seconds, descriptors=0)
        except OSError as error:
            self._stderr.seek(0)
            said = self._stderr.read()[-_STDERR_TAIL:].decode(errors="replace")
            raise OSError(f"the process that cells are forked of did not start: {error}; {said}") from error

    def start(self, folder: CellFolder, given: Given) -> Process:
        """As queryd.engine.processes.Start. ZygoteLostError is the end of this one, any other OSError of the cell."""
        name = folder.root.name.encode()
        self.forks += 1
        with contextlib.ExitStack() as undo:
            status, told = os.pipe2(os.O_CLOEXEC)
            undo.callback(os.close, status)
            with contextlib.ExitStack() as theirs:
                theirs.callback(os.close, told)
                self._ask(name, [*given, told])
                (descriptor,) = self._hear(name, b"forked", _FORK_SECONDS, descriptors=1)
            undo.callback(os.close, descriptor)
            process = ForkedProcess(_pid_of(descriptor), descriptor, status, self._hear_of_crash)
            undo.pop_all()
            return process

    def retire(self) -> None:
        """It is asked nothing more, and ends by itself once its last cell has."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)

    def kill(self) -> None:
        """With all cells that were forked of it. A thread that waits for it goes on."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        if self._process.poll() is None:
            # And what bubblewrap has started by then: its child would wait for ever to hear from it.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def close(self) -> None:
        """Kills it where it still runs."""
        self.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_END_SECONDS)
        self._left.close()

    def _hear_of_crash(self) -> None:
        """From any thread."""
        self.has_crashed = True

    def _ask(self, name: bytes, descriptors: list[int]) -> None:
        self._socket.settimeout(_FORK_SECONDS)
        try:
            socket.send_fds(self._socket, [name], descriptors)
        except (ConnectionError, TimeoutError) as error:
            raise ZygoteLostError(f"it cannot be asked: {error}") from error

    def _hear(self, name: bytes, word: bytes, seconds: float, descriptors: int) -> list[int]:
        """What comes with this word on this cell."""
        self._socket.settimeout(seconds)
        try:
            answer, found, _, _ = socket.recv_fds(self._socket, _LONGEST_ANSWER, descriptors)
        except OSError as error:
            raise ZygoteLostError(f"it does not answer: {error}") from error
        about, _, said = answer.partition(b"\0")
        if (about, said) == (name, word) and len(found) == descriptors:
            return found
        for descriptor in found:
            os.close(descriptor)
        if not answer or about != name:
            raise ZygoteLostError("it answers for another cell" if answer else "it has ended")
        if said == word:
            raise OSError("no descriptor was left for the process")
        raise OSError(said.decode(errors="replace"))


def _pid_of(descriptor: int) -> int:
    """As this process would call it; -1 where it has ended."""
    for line in Path(f"/proc/self/fdinfo/{descriptor}").read_text().splitlines():
        if line.startswith("Pid:"):
            return int(line.split()[1])
    return -1
