"""A dispatcher with a small DAG, for the tests of its slices."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio

from dispatcher.db.pool import Pool
from tests.dispatcher.builders import CHAIN, Source, start_source
from tests.dispatcher.in_process import InProcess, in_process_dispatcher


@pytest_asyncio.fixture
async def dispatcher(pool: Pool, tmp_path: Path) -> AsyncIterator[InProcess]:
    """A dispatcher over real gRPC on a fresh database, without a DAG; duties are run by hand."""
    async with in_process_dispatcher(pool, tmp_path / "artifacts") as running:
        yield running


@pytest_asyncio.fixture
async def source(dispatcher: InProcess) -> Source:
    """The DAG `chain` is deployed, and its source is claimed."""
    await dispatcher.deploy(CHAIN)
    return await start_source(dispatcher)
