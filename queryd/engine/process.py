"""A cell as queryd holds it: a process, two pipes, a private folder."""

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import threading
from pathlib import Path
from typing import BinaryIO

from queryd.engine import messages
from queryd.engine.messages import Kind
from queryd.engine.sandbox import CellFolder, Sandbox

_PIPE_BYTES = 1 << 20
_STDERR_TAIL = 4096
_END_SECONDS = 10.0


class CellEndedError(Exception):
    """The process ended without an answer: by a signal, or by itself (0); `stderr` is its last words."""

    def __init__(self, signal_number: int, stderr: str) -> None:
        super().__init__(f"the engine's process ended (signal {signal_number})")
        self.signal_number, self.stderr = signal_number, stderr


class CellProcess:
    """One cell. `kill` may be called from any thread at any time, and again; all else belongs to one thread."""

    def __init__(self, sandbox: Sandbox, folder: Path) -> None:
        """Starts the process. It is not ready before `wait_ready` returns."""
        self._folder = CellFolder(Path(tempfile.mkdtemp(dir=folder)))
        self._folder.scratch.mkdir()
        self._folder.files.mkdir()
        self.store = sandbox.store(self._folder)
        with self._folder.stderr.open("wb") as stderr:
            self._process = subprocess.Popen(
                sandbox.command(self._folder),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                cwd=self._folder.scratch,
                env={},
                close_fds=True,
                start_new_session=True,
                pipesize=_PIPE_BYTES,
            )
        self._lock = threading.Lock()
        self._closed = False

    @property
    def files(self) -> Path:
        """Into which the query's files are put, where the sandbox shows the cell a folder of its own."""
        return self._folder.files

    @property
    def pid(self) -> int:
        return self._process.pid

    def wait_ready(self) -> None:
        """Returns when the cell has loaded the engine. Raises CellEndedError."""
        kind, _ = self.receive()
        if kind is not Kind.READY:
            raise messages.ProtocolError(f"{kind} before ready")

    def send(self, kind: Kind, payload: bytes) -> None:
        """Raises CellEndedError."""
        try:
            messages.write_frame(self._stdin, kind, payload)
        except (OSError, ValueError) as error:
            raise self._ended() from error

    def receive(self) -> tuple[Kind, bytes]:
        """The next frame; waits for it. Raises CellEndedError, ProtocolError."""
        try:
            frame = messages.read_frame(self._stdout, messages.MAX_ANSWER_BYTES)
        except (OSError, ValueError) as error:
            raise self._ended() from error
        if frame is None:
            raise self._ended()
        return frame

    def kill(self) -> None:
        """Stops it at once. The pipes end, so a thread that waits in `receive` goes on."""
        with self._lock:
            if not self._closed and self._process.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self._process.pid, signal.SIGKILL)

    def close(self) -> None:
        """Kills it where it still runs, and removes what it left. Can be repeated."""
        self.kill()
        with self._lock:
            if self._closed:
                return
            self._closed = True
        self._process.wait(_END_SECONDS)
        for stream in (self._stdin, self._stdout):
            with contextlib.suppress(OSError):
                stream.close()
        shutil.rmtree(self._folder.root, ignore_errors=True)

    @property
    def _stdin(self) -> BinaryIO:
        stream = self._process.stdin
        assert stream is not None  # noqa: S101 - opened as a pipe above
        return stream  # type: ignore[return-value]

    @property
    def _stdout(self) -> BinaryIO:
        stream = self._process.stdout
        assert stream is not None  # noqa: S101 - opened as a pipe above
        return stream  # type: ignore[return-value]

    def _ended(self) -> CellEndedError:
        self.kill()
        code = self._process.wait(_END_SECONDS)
        with contextlib.suppress(OSError), self._folder.stderr.open("rb") as file:
            file.seek(max(file.seek(0, os.SEEK_END) - _STDERR_TAIL, 0))
            return CellEndedError(-code if code < 0 else 0, file.read().decode(errors="replace"))
        return CellEndedError(0, "")
