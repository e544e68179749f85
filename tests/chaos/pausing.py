"""Stopping inside an open transaction, between two of its steps."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from tests.dispatcher.in_process import DEADLINE


class Pause:
    """The first who comes by stands still until it is over; all others pass."""

    def __init__(self) -> None:
        self._reached, self._over = asyncio.Event(), asyncio.Event()

    async def come_by(self) -> None:
        if not self._reached.is_set():
            self._reached.set()
            await self._over.wait()

    async def reached(self) -> None:
        async with asyncio.timeout(DEADLINE):
            await self._reached.wait()

    def over(self) -> None:
        self._over.set()


@contextmanager
def paused(module: Any, name: str) -> Iterator[Pause]:
    """Stands still after the function, within the transaction."""
    pause, function = Pause(), getattr(module, name)

    async def pausing(*arguments: Any, **named: Any) -> Any:
        result = await function(*arguments, **named)
        await pause.come_by()
        return result

    with patch.object(module, name, pausing):
        yield pause
