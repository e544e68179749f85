"""What is left of a query once its answer is given: its record, process, files, pin. Nobody waits for that any more.

The process is killed by whoever ends the query; here it is waited for, and its folder removed; then the files that it
read are let go of, and last the pin is released, by another thread, for that is a call that may not be answered. How
the query ended is told by a third one, which waits for none of this.
"""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

from kernel.errors import TraceError
from kernel.telemetry import get_logger
from queryd.engine.process import CellProcess

_log = get_logger("queryd.aftermath")
# When closing, what pins may take together; those that are left end by themselves, a minute later.
_LAST_SECONDS = 3.0
# Queries that are cleared away at the same time: a process that does not end, or a disk that stalls, keeps one of them.
_CLEARING = 4


@dataclass(frozen=True, slots=True)
class Remains:
    """`held` are the files, and whatever else the process used. An empty pin is none. `tell` tells how it ended."""

    cell: CellProcess | None
    held: ExitStack
    pin_id: str
    tell: Callable[[], None] = lambda: None


class Aftermath:
    """One for each queryd, with threads for processes, one for pins, and one that tells how queries ended."""

    def __init__(self, release: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        """`release` ends a pin's lease; it raises TraceError."""
        self._release = release
        self._clock = clock
        self._end: float | None = None
        self._cells = ThreadPoolExecutor(_CLEARING, "aftermath")
        self._pins = ThreadPoolExecutor(1, "pins")
        self._ends = ThreadPoolExecutor(1, "ends")

    def take(self, remains: Remains) -> None:
        """Returns at once; of one that comes after the end it is done here."""
        _submit(self._ends, partial(_attempt, remains.tell, "the end of a query could not be told"))
        _submit(self._cells, partial(self._clear, remains))

    def let_go(self, pin_id: str) -> None:
        """Returns at once; the pin is released when its turn comes."""
        _submit(self._pins, partial(self.release, pin_id))

    def release(self, pin_id: str) -> None:
        """Ends a pin's lease; where that is not to be had it ends by itself."""
        if self._end is not None and self._clock() >= self._end:
            return
        try:
            self._release(pin_id)
        except TraceError as error:
            _log.warning("a pin could not be released", pin_id=pin_id, reason=error.reason_name)
        except Exception:  # noqa: BLE001 - a defect, of which nobody else would hear
            _log.exception("a pin could not be released", pin_id=pin_id)

    def close(self) -> None:
        """Does what is left. Can be repeated."""
        self._ends.shutdown(wait=True)
        self._cells.shutdown(wait=True)
        if self._end is None:
            self._end = self._clock() + _LAST_SECONDS
        self._pins.shutdown(wait=True)

    def _clear(self, remains: Remains) -> None:
        if remains.cell is not None:
            _attempt(remains.cell.close, "a cell could not be closed")
        _attempt(remains.held.close, "what a query held could not be let go of")
        if remains.pin_id:
            self.let_go(remains.pin_id)


def _submit(thread: ThreadPoolExecutor, step: Callable[[], None]) -> None:
    """Has it done by the thread; here, where that has ended."""
    try:
        thread.submit(step)
    except RuntimeError:
        step()


def _attempt(step: Callable[[], object], failure: str) -> None:
    """One step. A defect in it is logged, and keeps neither the next steps nor other queries' ones."""
    try:
        step()
    except Exception:  # noqa: BLE001 - as said above
        _log.exception(failure)
