"""Which process cells are forked of: one after the other, so that no layout of the address space lasts.

All cells of one zygote have one layout, so what a query finds out of it, say by a crash that it causes, is true of the
next cell. Hence a zygote is followed by another one after a crash of a cell, and after so many forks. The next one is
loaded while the present one goes on, and takes over once it is ready: no query waits for it. Those before it stay until
their last cells have gone: what befalls one cell, or the zygote that is asked, is no end of the queries that run.
"""

import contextlib
import time
from collections.abc import Callable
from pathlib import Path

from kernel.telemetry import get_logger
from queryd.engine.forking import START_SECONDS, Zygote, ZygoteLostError
from queryd.engine.processes import Given, Process
from queryd.engine.sandbox import CellFolder, Sandbox

_log = get_logger("queryd.succession")
# To load one takes some 300 ms of CPU: a thousandth of a second for each fork.
_FORKS = 300
# After one that could not be started.
_PAUSE_SECONDS = 10.0


class Zygotes:
    """The one that is asked for cells, begun when the first is wanted; the next one; those before.

    `kill` may be called from any thread; all else belongs to one, with whose end all of them end.
    """

    def __init__(
        self, sandbox: Sandbox, folder: Path, forks: int = _FORKS, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`sandbox` and `folder` as those of Zygote; each is to be asked for so many `forks`."""
        self._sandbox, self._folder = sandbox, folder
        self._forks = forks
        self._clock = clock
        self._asked: Zygote | None = None
        self._next: Zygote | None = None
        self._retired: list[Zygote] = []
        self._pause_end = clock()
        self._killed = False

    def start(self, folder: CellFolder, given: Given) -> Process:
        """As queryd.engine.processes.Start."""
        self._close_ended()
        if self._asked is not None and self._asked.has_ended:
            self.retire()
        if self._asked is None:
            self._succeed(START_SECONDS)
        elif self._next is not None or self._is_worn(self._asked):
            self._renew()
        asked = self._asked
        assert asked is not None  # noqa: S101 - or it had been raised why not
        try:
            return asked.start(folder, given)
        except ZygoteLostError:
            self.retire()
            raise

    def retire(self) -> None:
        """The next cell is forked of another one."""
        if self._asked is not None:
            self._asked.retire()
            self._retired.append(self._asked)
            self._asked = None

    def kill(self) -> None:
        """All that were begun, with their cells, and each that is begun after this."""
        self._killed = True
        # In the order in which one goes from one place to the next, so that none is missed on its way.
        for zygote in (self._next, self._asked, *self._retired):
            if zygote is not None:
                zygote.kill()

    def close(self) -> None:
        """Kills those that still run."""
        with contextlib.ExitStack() as left:
            for zygote in (self._next, self._asked, *self._retired):
                if zygote is not None:
                    left.callback(zygote.close)
            self._next = self._asked = None
            self._retired.clear()

    def _is_worn(self, zygote: Zygote) -> bool:
        return (zygote.has_crashed or zygote.forks >= self._forks) and self._clock() >= self._pause_end

    def _renew(self) -> None:
        """Begins the next one, or lets it take over if it is ready. Waits for nothing; where it fails, the present one
        goes on for a while."""
        try:
            if self._next is None:
                self._begin()
            elif self._next.is_due:
                self._succeed(0)
        except OSError as error:
            self._pause_end = self._clock() + _PAUSE_SECONDS
            _log.warning("cells are still forked of one process, for no other could be started", error=str(error))

    def _succeed(self, seconds: float) -> None:
        """The next one is asked from now on. Raises OSError where it is not ready in time."""
        successor = self._next or self._begin()
        try:
            successor.wait_ready(seconds)
        except OSError:
            self._next = None
            successor.close()
            raise
        self.retire()
        self._asked = successor
        self._next = None

    def _begin(self) -> Zygote:
        zygote = self._next = Zygote(self._sandbox, self._folder)
        if self._killed:  # who killed them may have looked before there was this one
            zygote.kill()
        return zygote

    def _close_ended(self) -> None:
        for zygote in [zygote for zygote in self._retired if zygote.has_ended]:
            self._retired.remove(zygote)
            zygote.close()
