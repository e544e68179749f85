"""Waiting before the next try: exponential, with jitter, so that a fleet that lost its dispatcher does not return as
one."""

import asyncio
import random

_FIRST_SECONDS = 0.05
_MAX_SECONDS = 5.0


class Backoff:
    """The waits of one series of tries."""

    def __init__(self, *, first: float = _FIRST_SECONDS, limit: float = _MAX_SECONDS) -> None:
        self._first = first
        self._limit = limit
        self._next = first

    def seconds(self, at_least: float | None = None) -> float:
        """The next wait: between half of the step and all of it, and not less than the server asked for."""
        wait = self._next * (0.5 + random.random() / 2)
        self._next = min(self._next * 2, self._limit)
        return max(wait, at_least or 0.0)

    async def sleep(self, at_least: float | None = None) -> None:
        await asyncio.sleep(self.seconds(at_least))

    def reset(self) -> None:
        """After a success."""
        self._next = self._first
