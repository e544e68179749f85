"""Signals as values that a loop waits for, together with the ends of processes. Handlers here only count."""

import contextlib
import os
import select
import signal
import time
from collections.abc import Iterable
from types import FrameType, TracebackType
from typing import Any, Self

_STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class StopSignals:
    """While entered: how often this process was asked to stop. The first asks for order, the second for haste."""

    def __init__(self) -> None:
        self.count = 0
        self._former: dict[signal.Signals, Any] = {}
        self._read_fd = -1
        self._write_fd = -1

    def __enter__(self) -> Self:
        self._read_fd, self._write_fd = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._former = {number: signal.signal(number, self._on_signal) for number in _STOPS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)
        os.close(self._read_fd)
        os.close(self._write_fd)

    @property
    def stop(self) -> bool:
        return self.count > 0

    @property
    def hurry(self) -> bool:
        return self.count > 1

    def wait(self, fds: Iterable[int], timeout: float | None) -> set[int]:
        """Waits for one of the descriptors to become readable, for a signal, or for the timeout in seconds.

        Answers the readable descriptors. A signal that came before the call and was not waited for ends it at once.
        """
        poll = select.poll()
        for fd in fds:
            poll.register(fd, select.POLLIN)
        poll.register(self._read_fd, select.POLLIN)
        deadline = None if timeout is None else time.monotonic() + timeout
        remaining = None if deadline is None else max(0.0, deadline - time.monotonic()) * 1000
        found = {fd for fd, _ in poll.poll(remaining)}
        if self._read_fd in found:
            os.read(self._read_fd, 4096)
        return found - {self._read_fd}

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.count += 1
        # The pipe wakes the poll; when it is full there is enough in it to do so.
        with contextlib.suppress(BlockingIOError):
            os.write(self._write_fd, b".")
