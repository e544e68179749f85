"""Fixtures of the wrapper's tests."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio

from tests.wrapper.stack import Stack, open_stack


@pytest_asyncio.fixture
async def stack(tmp_path: Path) -> AsyncIterator[Stack]:
    """A fake dispatcher on a real socket, with credentials and an artifact store."""
    async with open_stack(tmp_path) as opened:
        yield opened
