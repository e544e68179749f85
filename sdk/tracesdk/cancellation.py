"""The word that a unit of work is to stop, and everything that waits and must hear it."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from tracesdk.errors import TaskCanceled


class Cancelable(Protocol):
    """Something that waits, such as a call."""

    def cancel(self) -> object: ...


class Cancellation:
    """One unit's cancellation. Said by the thread that listens to the wrapper, heard by the one that works."""

    __slots__ = ("_event", "_lock", "_waiting", "reason")

    def __init__(self) -> None:
        self._event = threading.Event()
        self._lock = threading.Lock()
        self._waiting: list[Cancelable] = []
        self.reason = ""

    @property
    def canceled(self) -> bool:
        return self._event.is_set()

    def cancel(self, reason: str) -> None:
        """Says it; calls that are under way are cancelled."""
        with self._lock:
            self.reason = self.reason or reason
            self._event.set()
            waiting = list(self._waiting)
        for one in waiting:
            one.cancel()

    def wait(self, seconds: float) -> bool:
        """Waits so long, or until it is said; then True."""
        return self._event.wait(seconds)

    def check(self) -> None:
        """Raises TaskCanceled once it was said."""
        if self._event.is_set():
            raise TaskCanceled(self.reason or "canceled")

    @contextmanager
    def watching(self, call: Cancelable) -> Iterator[None]:
        """Cancels `call` when it is said before the block ends."""
        with self._lock:
            self._waiting.append(call)
            already = self._event.is_set()
        if already:
            call.cancel()
        try:
            yield
        finally:
            with self._lock:
                self._waiting.remove(call)
