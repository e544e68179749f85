"""Ranges of files, which a cell asks queryd for over a socket of its own, and how they come to it.

A request names a file by its index in the list that the cell was given, a position and a length; the answer is these
bytes and nothing else, in the order of asking. A range that cannot be had has no answer: queryd ends the query, and
says why to its caller. The cell asks for all parts of what it wants at once, so that they are fetched side by side;
what has come and is not read is at most AT_ONCE parts.

Both sides are this file. A cell is not trusted: what it asks for is held against its query's list (queryd/ranges.py).
"""

import errno
import io
import os
import select
import struct
import threading
from dataclasses import dataclass

from queryd.engine.pipes import PipeEnd, Wake

AT_ONCE = 4
"""Parts that are fetched for one cell at the same time."""
MAX_RANGE_BYTES = 4 << 20
"""Of one part."""
_REQUEST = struct.Struct(">IQI")
_ENDED = select.POLLHUP | select.POLLERR | select.POLLNVAL


@dataclass(frozen=True, slots=True)
class Asked:
    """What a cell asks for, as it says it."""

    index: int
    position: int
    length: int


class RangesEnd:
    """queryd's end, for one thread, but `tell`. What waits here raises BrokenPipeError once the cell is stopped or has
    ended."""

    def __init__(self, descriptor: int, wake: Wake) -> None:
        """Owns the descriptor of the socket."""
        self._descriptor = descriptor
        self._wake = wake
        self._answers = PipeEnd.writer(descriptor, wake)
        self._told = Wake()
        self._received = b""
        self._lock = threading.Lock()
        self._closed = False

    def wait(self, *, requests: bool) -> None:
        """Until it is told something, or, where requests are wanted, some have come."""
        poll = select.poll()
        poll.register(self._descriptor, select.POLLIN if requests else 0)
        for waking in (self._wake, self._told):
            poll.register(waking.descriptor, select.POLLIN)
        found = dict(poll.poll())
        if self._wake.descriptor in found or found.get(self._descriptor, 0) & _ENDED:
            raise BrokenPipeError("the cell was stopped, or has ended")
        if self._told.descriptor in found:
            os.eventfd_read(self._told.descriptor)

    def requests(self, most: int) -> list[Asked]:
        """Those that have come, so many at most; waits for none."""
        try:
            data = os.read(self._descriptor, most * _REQUEST.size - len(self._received))
        except BlockingIOError:
            return []
        if not data:
            raise BrokenPipeError("the cell has ended")
        data = self._received + data
        whole = len(data) // _REQUEST.size * _REQUEST.size
        self._received = data[whole:]
        return [Asked(*fields) for fields in _REQUEST.iter_unpack(data[:whole])]

    def answer(self, data: bytes) -> None:
        """Waits while the cell does not read."""
        self._answers.write(data)

    def tell(self) -> None:
        """From any thread, and also when it is closed: `wait` returns."""
        with self._lock:
            if not self._closed:
                self._told()

    def close(self) -> None:
        with self._lock:
            self._closed = True
            self._told.close()
        self._answers.close()


class RangeAsker:
    """The cell's end, for all threads of the engine."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._asking = threading.Lock()
        # Held by who asked last, until it has read its answer: the next one reads after it.
        self._last = threading.Lock()
        # While an answer is read; for good where that failed: what comes next is not what the next one asked for.
        self._broken = False

    def read(self, index: int, position: int, length: int) -> bytes:
        """These bytes, all of them; waits for them. MemoryError, or OSError where queryd is gone, or after an error."""
        mine = threading.Lock()
        with mine:
            with self._asking:
                before, self._last = self._last, mine
                os.write(self._descriptor, b"".join(_requests(index, position, length)))
            with before:
                if self._broken:
                    raise OSError(errno.EIO, "what was asked for before was not read")
                self._broken = True
                whole = io.BytesIO(bytes(length))  # whose value is that object itself, since nobody else has it
                with whole.getbuffer() as room:
                    self._fill(room)
                self._broken = False
        return whole.getvalue()

    def _fill(self, room: memoryview) -> None:
        filled = 0
        while filled < len(room):
            count = os.readv(self._descriptor, [room[filled:]])
            if not count:
                raise BrokenPipeError("queryd has gone away")
            filled += count


def _requests(index: int, position: int, length: int) -> list[bytes]:
    end = position + length
    starts = range(position, end, MAX_RANGE_BYTES)
    return [_REQUEST.pack(index, start, min(MAX_RANGE_BYTES, end - start)) for start in starts]
