"""An object of S3 as a file that can be read anywhere: ranges are fetched as they are needed.

Parquet is read from its end and then by column; bundles and digests from front to back. Both are served by one window
that reads ahead, further each time the reading goes on where it was, and starts small again where it jumps.
"""

import io
from collections.abc import Callable
from typing import Any

FIRST_BYTES = 1 << 20
"""Fetched when an object is opened: most are no larger."""
_MOST_AHEAD = 8 << 20

Fetch = Callable[[int, int], bytes]
"""Takes a position and a length; answers these bytes."""


class RangeReader(io.RawIOBase):
    """`head` is the object's beginning. Errors are those of `fetch`. For one thread at a time."""

    def __init__(self, fetch: Fetch, size: int, head: bytes) -> None:
        super().__init__()
        self._fetch = fetch
        self._size = size
        self._window, self._window_start = head, 0
        self._ahead = FIRST_BYTES
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise ValueError(f"position {base + offset} is before the beginning")
        self._position = base + offset
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Fills all of the buffer that the object can fill."""
        target = memoryview(buffer).cast("B")
        filled = 0
        while filled < len(target) and self._position < self._size:
            available = self._at(self._position, len(target) - filled)
            count = min(len(available), len(target) - filled)
            target[filled : filled + count] = available[:count]
            self._position += count
            filled += count
        return filled

    def _at(self, position: int, wanted: int) -> memoryview:
        """What there is from this position on, at least a byte."""
        end = self._window_start + len(self._window)
        if not self._window_start <= position < end:
            self._ahead = min(self._ahead * 2, _MOST_AHEAD) if position == end else FIRST_BYTES
            self._window = b""  # not both at once
            self._window = self._fetch(position, min(max(wanted, self._ahead), self._size - position))
            self._window_start = position
        return memoryview(self._window)[position - self._window_start :]
