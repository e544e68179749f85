"""queryd's ends of a cell's pipes. A thread that waits at one goes on when it is woken, whoever holds the other end.

The end of a pipe is told only when the last process has gone that holds the other side. One that outlived its cell, or
was started in the moment of its end, would keep queryd's thread for ever: so nothing here waits for the pipe alone.
"""

import io
import os
import select
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer


class Wake:
    """Ends all waiting at the pipes that have it, from any thread, for good."""

    def __init__(self) -> None:
        self.descriptor = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    def __call__(self) -> None:
        os.eventfd_write(self.descriptor, 1)

    def close(self) -> None:
        os.close(self.descriptor)


class PipeEnd(io.RawIOBase):
    """One end, for one thread. Waits until the other side has done its part; raises BrokenPipeError once woken."""

    def __init__(self, descriptor: int, wake: Wake, events: int) -> None:
        """Owns the descriptor; `events` are those of poll(2) that are waited for."""
        super().__init__()
        os.set_blocking(descriptor, False)
        self._descriptor = descriptor
        self._wake = wake
        self._poll = select.poll()
        self._poll.register(descriptor, events)
        self._poll.register(wake.descriptor, select.POLLIN)

    @classmethod
    def reader(cls, descriptor: int, wake: Wake) -> io.BufferedReader:
        return io.BufferedReader(cls(descriptor, wake, select.POLLIN))

    @classmethod
    def writer(cls, descriptor: int, wake: Wake) -> Self:
        """Unbuffered: what is written is in the pipe."""
        return cls(descriptor, wake, select.POLLOUT)

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def readinto(self, buffer: "WriteableBuffer") -> int:
        while True:
            try:
                return os.readv(self._descriptor, [buffer])
            except BlockingIOError:
                self._wait()

    def write(self, data: "ReadableBuffer") -> int:
        """All of it."""
        left = memoryview(data).cast("B")
        size = len(left)
        while left:
            try:
                left = left[os.write(self._descriptor, left) :]
            except BlockingIOError:
                self._wait()
        return size

    def offer(self, data: bytes) -> bool:
        """Whether all of it, at most PIPE_BUF bytes, had room at once; else nothing is written."""
        try:
            os.write(self._descriptor, data)
        except BlockingIOError:
            return False
        return True

    def close(self) -> None:
        if not self.closed:
            super().close()
            os.close(self._descriptor)

    def _wait(self) -> None:
        if any(descriptor == self._wake.descriptor for descriptor, _ in self._poll.poll()):
            raise BrokenPipeError("the cell was stopped")
