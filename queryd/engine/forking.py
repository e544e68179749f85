"""queryd's side of the process that cells are forked of (queryd/engine/zygote.py)."""

import contextlib
import os
import socket
import subprocess
import tempfile
from pathlib import Path

from queryd.engine.processes import ForkedProcess, Process
from queryd.engine.sandbox import CellFolder, Sandbox

_LONGEST_WORD = 255
_START_SECONDS = 30.0
_FORK_SECONDS = 10.0
_END_SECONDS = 10.0
_STDERR_TAIL = 500


class Zygote:
    """One of them. `kill` may be called from any thread; all else belongs to the thread that made it, with whose end it
    ends."""

    def __init__(self, sandbox: Sandbox, folder: Path) -> None:
        """Starts it; `folder` has the cells' folders. It is not ready before `wait_ready` returns. Raises OSError."""
        assert sandbox.zygote is not None  # noqa: S101 - who makes one has looked
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - closed with it
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
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

    def wait_ready(self) -> None:
        """Returns when it has loaded everything. Raises OSError, with its last words."""
        try:
            self._expect(b"ready", _START_SECONDS, descriptors=0)
        except OSError as error:
            self._stderr.seek(0)
            said = self._stderr.read()[-_STDERR_TAIL:].decode(errors="replace")
            raise OSError(f"the process that cells are forked of did not start: {error}; {said}") from error

    def start(self, folder: CellFolder, requests: int, answers: int, stderr: int) -> Process:
        """As queryd.engine.processes.Start."""
        status, told = os.pipe2(os.O_CLOEXEC)
        try:
            socket.send_fds(self._socket, [folder.root.name.encode()], [requests, answers, stderr, told])
            (descriptor,) = self._expect(b"forked", _FORK_SECONDS, descriptors=1)
        except OSError:
            os.close(status)
            raise
        finally:
            os.close(told)
        return ForkedProcess(_pid_of(descriptor), descriptor, status)

    def kill(self) -> None:
        """With all cells that were forked of it. A thread that waits for it goes on."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._process.kill()

    def close(self) -> None:
        """Kills it where it still runs."""
        self.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_END_SECONDS)
        self._socket.close()
        self._stderr.close()

    def _expect(self, word: bytes, seconds: float, descriptors: int) -> list[int]:
        self._socket.settimeout(seconds)
        said, found, _, _ = socket.recv_fds(self._socket, _LONGEST_WORD, descriptors)
        if said == word and len(found) == descriptors:
            return found
        for descriptor in found:
            os.close(descriptor)
        raise ConnectionError(said.decode(errors="replace") if said else "it has ended")


def _pid_of(descriptor: int) -> int:
    """As this process would call it; -1 where it has ended."""
    for line in Path(f"/proc/self/fdinfo/{descriptor}").read_text().splitlines():
        if line.startswith("Pid:"):
            return int(line.split()[1])
    return -1
