"""How much a listener serves at once: beyond it a call is refused, with when to come again, and nothing piles up.

It counts calls with one request and one answer. Streams have bounds of their own: credits, pages, limits of their kind.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from kernel.errors import TraceError
from traceapi.types.v1 import errors_pb2

MAX_CALLS = 2_000
MAX_BYTES = 128 * 1024 * 1024
RETRY_AFTER = 0.2
"""Seconds after which a refused caller may come back."""


class Room:
    """The calls of one listener that are being served, and the bytes of their requests."""

    def __init__(self, max_calls: int = MAX_CALLS, max_bytes: int = MAX_BYTES) -> None:
        self._max_calls = max_calls
        self._max_bytes = max_bytes
        self._calls = 0
        self._bytes = 0

    @contextmanager
    def taken(self, size: int) -> Iterator[None]:
        """A call of so many bytes, while it lasts. TraceError OVERLOADED where there is no room for it now."""
        if self._calls >= self._max_calls or (self._calls and self._bytes + size > self._max_bytes):
            raise TraceError(
                errors_pb2.ERROR_REASON_OVERLOADED,
                f"{self._calls} calls with {self._bytes} bytes are being served, which is all that is served at once",
                retry_after=RETRY_AFTER,
            )
        self._calls += 1
        self._bytes += size
        try:
            yield
        finally:
            self._calls -= 1
            self._bytes -= size
