"""Ctrl-C until a program's last line: a KeyboardInterrupt where somebody expects one, never a traceback."""

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

_AGAIN_SECONDS = 0.01


@contextmanager
def interruptible(*also: signal.Signals) -> Iterator[None]:
    """Within, SIGINT and `also` raise KeyboardInterrupt, one that the process was started with blocked at once.

    Afterwards they are ignored, because everything is done, and Python's own end would answer with a traceback.
    """
    numbers = [number for number in (signal.SIGINT, *also) if signal.getsignal(number) is not signal.SIG_IGN]
    sys.unraisablehook = _unraisable
    for number in (*numbers, signal.SIGALRM):
        signal.signal(number, _interrupt)
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, numbers)
        yield
    finally:
        for number in (*numbers, signal.SIGALRM):
            signal.signal(number, signal.SIG_IGN)


@contextmanager
def held_back(at_once: Callable[[], object] = lambda: None) -> Iterator[Callable[[], None]]:
    """Within, signals that ask to stop wait for a call of the yielded function, or for the end.

    So that nothing can come between the start of a process and the `try` that ends it, or cut that end short. Each
    calls `at_once` when it comes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return
    noted: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        noted.append(number)
        at_once()

    former = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}

    def release() -> None:
        while former:
            number, handler = former.popitem()
            signal.signal(number, handler)
        while noted:
            signal.raise_signal(noted.pop())

    try:
        yield release
    finally:
        release()


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _unraisable(found: Any) -> None:
    """A KeyboardInterrupt that fell into a destructor or a callback is lost there: it comes again a moment later."""
    if issubclass(found.exc_type, KeyboardInterrupt):
        signal.setitimer(signal.ITIMER_REAL, _AGAIN_SECONDS)
    else:
        sys.__unraisablehook__(found)
