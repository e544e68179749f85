"""Cells kept ready, so that a query does not wait for one to be started: for a fork, some milliseconds; for a Python
and an engine that have to be loaded, a third of a second."""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from kernel.telemetry import get_logger
from queryd.engine.frames import ProtocolError
from queryd.engine.process import CellEndedError, CellProcess
from queryd.engine.processes import Start, fresh
from queryd.engine.sandbox import Sandbox
from queryd.engine.succession import Zygotes

_log = get_logger("queryd.pool")
# After a cell that could not start: the next one may fail in the same way.
_PAUSE_SECONDS = 1.0
# When the pool starts, a sandbox that fails is tried again after these; then the next one is.
_TRY_AGAIN_SECONDS = (0.2, 1.0)
# Not one that took longer than this to fail.
_QUICK_SECONDS = 5.0
# A cell that is not ready by then never will be: the one thread that starts them would wait for it for ever.
_READY_SECONDS = 30.0
# Between two looks at whether who waits for a cell still wants one.
_LOOK_SECONDS = 0.25
# From the taking of a cell to the start of the next one: about as long as a small query takes.
_GIVE_WAY_SECONDS = 0.02


class CellUnavailableError(Exception):
    """No cell became ready in time."""


class CellPool:
    """`warm` cells wait; each one that is taken is replaced. `sandboxes` are tried in order when the pool starts; the
    first one that works is chosen for good, so that no trouble later makes the walls lower.

    `folder` is where the cells' own folders are made. A cell is killed that is not ready in `ready_seconds`.

    One thread starts all cells, and lives as long as the pool: a cell dies with the thread that started it, for that is
    what "die with the parent" means to Linux.
    """

    def __init__(
        self, sandboxes: Sequence[Sandbox], warm: int, folder: Path, ready_seconds: float = _READY_SECONDS
    ) -> None:
        self._sandboxes = sandboxes
        self._warm = warm
        self._ready_seconds = ready_seconds
        self._ready: deque[CellProcess] = deque()
        self._waiting = 0
        self._changed = threading.Condition()
        self._stopping = threading.Event()
        self._started = threading.Event()
        self._folder = folder
        self._thread = threading.Thread(target=self._run, name="cells", daemon=True)
        self.sandbox: Sandbox | None = None
        self._zygotes: Zygotes | None = None
        self._starting: CellProcess | None = None

    def start(self) -> Sandbox:
        """Returns with the first cell ready, and says in what. Raises CellUnavailableError."""
        self._thread.start()
        self._started.wait()
        if self.sandbox is None:
            raise CellUnavailableError("no cell can be started on this machine; the log says why")
        return self.sandbox

    def take(self, timeout: float, check: Callable[[], None] = lambda: None) -> CellProcess:
        """A cell of one's own, to be closed after one query. `check` raises where it is not wanted any more. Raises
        CellUnavailableError."""
        deadline = time.monotonic() + timeout
        while (cell := self._next(deadline, check)).has_ended:  # while it waited
            cell.close()
        return cell

    def close(self) -> None:
        """Ends the cells that wait, and the one that is being started, however long that would take.

        Those that were taken belong to who took them.
        """
        self._stopping.set()
        for started in (self._starting, self._zygotes):
            if started is not None:
                started.kill()
        with self._changed:
            self._changed.notify_all()
        if self._thread.is_alive():
            self._thread.join()
        with ExitStack() as left:
            while self._ready:
                left.callback(self._ready.popleft().close)

    def _next(self, deadline: float, check: Callable[[], None]) -> CellProcess:
        with self._changed:
            self._waiting += 1
            self._changed.notify_all()
            try:
                while not self._ready:
                    left = deadline - time.monotonic()
                    if self._stopping.is_set() or left <= 0:
                        raise CellUnavailableError("no cell became ready in time")
                    self._changed.wait(min(left, _LOOK_SECONDS))
                    check()
                return self._ready.popleft()
            finally:
                self._waiting -= 1
                self._changed.notify_all()

    def _run(self) -> None:
        try:
            self._choose()
        finally:
            self._started.set()
        try:
            while self.sandbox is not None and not self._stopping.is_set():
                cell = self._start_cell(self.sandbox)
                if cell is None:
                    self._stopping.wait(_PAUSE_SECONDS)
                    continue
                with self._changed:
                    self._ready.append(cell)
                    self._changed.notify_all()
                    self._changed.wait_for(self._is_short)
                    if self._ready:  # the next query need not wait, so this one is not hindered
                        self._changed.wait_for(self._is_pressed, _GIVE_WAY_SECONDS)
        finally:
            self._end_zygotes()

    def _is_short(self) -> bool:
        return self._stopping.is_set() or len(self._ready) < max(self._warm, self._waiting)

    def _is_pressed(self) -> bool:
        return self._stopping.is_set() or not self._ready or self._waiting > len(self._ready)

    def _choose(self) -> None:
        for sandbox in self._sandboxes:
            cell = self._first_cell(sandbox)
            if cell is not None:
                self._ready.append(cell)
                self.sandbox = sandbox
                return
            self._end_zygotes()

    def _first_cell(self, sandbox: Sandbox) -> CellProcess | None:
        """What befell one try, say for want of memory while the machine starts, decides nothing."""
        end = time.monotonic() + _QUICK_SECONDS
        cell = self._start_cell(sandbox)
        for pause in _TRY_AGAIN_SECONDS:
            if cell is not None or time.monotonic() >= end or self._stopping.wait(pause):
                break
            cell = self._start_cell(sandbox)
        return cell

    def _start_cell(self, sandbox: Sandbox) -> CellProcess | None:
        """None where that fails, in whatever way: the thread goes on, for nobody else starts cells."""
        try:
            return self._ready_cell(sandbox)
        except Exception as error:  # noqa: BLE001 - as said above
            if self._stopping.is_set():
                return None
            said = error.stderr[-500:] if isinstance(error, CellEndedError) else ""
            _log.warning(
                "a cell could not be started",
                sandbox=sandbox.name,
                error=str(error),
                said=said,
                exc_info=not isinstance(error, OSError | CellEndedError | ProtocolError),
            )
            return None

    def _ready_cell(self, sandbox: Sandbox) -> CellProcess:
        cell = self._starting = CellProcess(sandbox, self._folder, self._start_of(sandbox))
        too_late = threading.Timer(self._ready_seconds, cell.kill)
        too_late.daemon = True
        try:
            too_late.start()
            if self._stopping.is_set():  # who closes the pool may have looked before there was anything to kill
                cell.kill()
            cell.wait_ready()
        except Exception:
            cell.close()
            raise
        finally:
            too_late.cancel()
            self._starting = None
        return cell

    def _start_of(self, sandbox: Sandbox) -> Start:
        if sandbox.zygote is None:
            return fresh(sandbox)
        if self._zygotes is None:
            self._zygotes = Zygotes(sandbox, self._folder)
            if self._stopping.is_set():  # as above
                self._zygotes.kill()
        return self._zygotes.start

    def _end_zygotes(self) -> None:
        if (zygotes := self._zygotes) is not None:
            self._zygotes = None
            zygotes.close()
