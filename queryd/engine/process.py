"""A cell as queryd holds it: a process, two pipes, shared memory, a socket for ranges of files, a private folder."""

import contextlib
import fcntl
import io
import os
import signal
import socket
import tempfile
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from kernel.telemetry import get_logger
from queryd.engine.answers import Answered, read_answer
from queryd.engine.arrow_messages import Envelope
from queryd.engine.frames import MAX_ANSWER_BYTES, Kind, ProtocolError, frame_head, read_frame, write_frame
from queryd.engine.messages import RANGED, RangedFile, pack_files
from queryd.engine.pipes import PipeEnd, Wake
from queryd.engine.processes import Given, Process, Start, fresh
from queryd.engine.ranges import RangesEnd
from queryd.engine.removal import remove_tree
from queryd.engine.sandbox import CellFolder, Sandbox
from queryd.engine.slots import Slots

_log = get_logger("queryd.cell")
_PIPE_BYTES = 1 << 20
_STDERR_TAIL = 4096
_END_SECONDS = 10.0

_Frame = TypeVar("_Frame")


class CellEndedError(Exception):
    """The process ended without an answer: by a signal, or by itself (0); `stderr` is its last words."""

    def __init__(self, signal_number: int, stderr: str) -> None:
        super().__init__(f"the engine's process ended (signal {signal_number})")
        self.signal_number, self.stderr = signal_number, stderr


class CellForsakenError(CellEndedError):
    """It ended with the process that it was forked of, through nothing that its query did."""


class CellProcess:
    """One cell. `kill` may be called from any thread at any time, and again; all else belongs to one thread."""

    def __init__(self, sandbox: Sandbox, folder: Path, start: Start | None = None) -> None:
        """Starts the process. It is not ready before `wait_ready` returns. Raises OSError."""
        self._lock = threading.Lock()
        self._closed = False
        self._ranged: frozenset[str] = frozenset()
        self._serving: threading.Thread | None = None
        with contextlib.ExitStack() as undo:
            self._folder = CellFolder(Path(tempfile.mkdtemp(dir=folder)))
            undo.callback(remove_tree, self._folder.root)
            self._folder.scratch.mkdir()
            self._folder.files.mkdir()
            self.store = sandbox.store(self._folder)
            self._wake = Wake()
            undo.callback(self._wake.close)
            self._slots = Slots()
            undo.callback(self._slots.close)
            with contextlib.ExitStack() as theirs:
                requests, mine = _pipe()
                theirs.callback(os.close, requests)
                self._stdin = undo.enter_context(PipeEnd.writer(mine, self._wake))
                mine, answers = _pipe()
                theirs.callback(os.close, answers)
                self._stdout = undo.enter_context(PipeEnd.reader(mine, self._wake))
                stderr = theirs.enter_context(self._folder.stderr.open("wb")).fileno()
                mine, ranges = (end.detach() for end in socket.socketpair())
                theirs.callback(os.close, ranges)
                self._ranges = RangesEnd(mine, self._wake)
                undo.callback(self._ranges.close)
                given = Given(requests, answers, stderr, self._slots.descriptor, ranges)
                self._process: Process = (start or fresh(sandbox))(self._folder, given)
                undo.callback(self._process.close)
                undo.callback(self._end)
            self._left = undo.pop_all()

    @property
    def files(self) -> Path:
        """Into which the query's files are put, where the sandbox shows the cell a folder of its own."""
        return self._folder.files

    def place(self, key: str) -> str:
        """The path by which it reads an object of the store."""
        return f"{RANGED}://{key}" if key in self._ranged else f"{self.store}/{key}"

    def serve_ranges(self, files: Sequence[RangedFile], serve: Callable[[RangesEnd], None]) -> None:
        """It reads these by ranges, which a thread of its own gives it; `serve` returns soon after the cell is stopped
        or has ended. Once at most. Raises CellEndedError."""
        self._ranged = frozenset(file.key for file in files)
        serving = threading.Thread(target=serve, args=(self._ranges,), name="ranges", daemon=True)
        serving.start()
        self._serving = serving
        self.send(Kind.FILES, pack_files(files))

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def has_ended(self) -> bool:
        return self._process.wait(0) is not None

    def wait_ready(self) -> None:
        """Returns when the cell has loaded the engine. Raises CellEndedError."""
        kind, _ = self.receive()
        if kind is not Kind.READY:
            raise ProtocolError(f"{kind} before ready")

    def send(self, kind: Kind, payload: bytes) -> None:
        """Raises CellEndedError."""
        try:
            write_frame(self._stdin, kind, payload)
        except (OSError, ValueError) as error:
            raise self._ended() from error

    def receive(self) -> tuple[Kind, bytes]:
        """The next frame; waits for it. Raises CellEndedError, ProtocolError."""
        return self._read(lambda pipe: read_frame(pipe, MAX_ANSWER_BYTES))

    def receive_answer(self, envelope: Envelope) -> Answered:
        """The same of a cell that runs a text. What is to be sent of a message of Arrow is in its envelope."""
        return self._read(lambda pipe: read_answer(pipe, envelope, self._take))

    def kill(self) -> None:
        """Stops it at once. A thread that waits in `send` or `receive` goes on, even where the pipes do not end."""
        with self._lock:
            if not self._closed:
                self._wake()
                self._process.kill()

    def close(self) -> None:
        """Kills it where it still runs, and removes what it left: each step, whatever the one before has raised, which
        is raised in the end. Can be repeated."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        self._left.close()

    def _read(self, read: Callable[[io.BufferedReader], _Frame | None]) -> _Frame:
        try:
            frame = read(self._stdout)
        except (OSError, ValueError) as error:
            raise self._ended() from error
        if frame is None:
            raise self._ended()
        return frame

    def _take(self, size: int, envelope: Envelope) -> bytes:
        """The next message from its slot, which is free then. Waits for nothing: a cell that takes its slots in turn
        leaves few words of free ones unread."""
        message = self._slots.take(size, envelope)
        with contextlib.suppress(BrokenPipeError):  # it has said all, and may have ended
            if not self._stdin.offer(frame_head(Kind.FREED, 0)):
                raise ProtocolError("a cell that fills slots and does not hear that they are free")
        return message

    def _end(self) -> None:
        self._wake()
        self._process.kill()
        if self._process.wait(_END_SECONDS) is None:
            _log.warning("a cell has not ended though it was killed", pid=self.pid)
        if self._serving is not None:
            self._serving.join()  # it is awake, and looks at descriptors that are closed next

    def _ended(self) -> CellEndedError:
        self.kill()
        code = self._process.wait(_END_SECONDS)
        code = -signal.SIGKILL if code is None else code
        ended = CellForsakenError if self._process.forsaken else CellEndedError
        return ended(-code if code < 0 else 0, self._last_words())

    def _last_words(self) -> str:
        with contextlib.suppress(OSError), self._folder.stderr.open("rb") as file:
            file.seek(max(file.seek(0, os.SEEK_END) - _STDERR_TAIL, 0))
            return file.read().decode(errors="replace")
        return ""


def _pipe() -> tuple[int, int]:
    """Its ends for reading and for writing, with room for much."""
    ends = os.pipe2(os.O_CLOEXEC)
    with contextlib.suppress(OSError):  # who has many pipes may have no room for large ones
        fcntl.fcntl(ends[0], fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
    return ends
