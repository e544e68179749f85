"""A database with the table that batched writes go to."""

from collections.abc import AsyncIterator

import psycopg
import pytest
import pytest_asyncio
from psycopg.conninfo import make_conninfo

from dispatcher.db.pool import Pool, PoolConfig, open_pool
from tests.dispatcher.db.writing import TABLES


@pytest.fixture
def tables(empty_database: str) -> str:
    with psycopg.connect(empty_database) as connection:
        connection.execute(TABLES)
    return empty_database


@pytest_asyncio.fixture
async def written_pool(tables: str) -> AsyncIterator[Pool]:
    options = "-c deadlock_timeout=10ms"
    async with open_pool(PoolConfig(make_conninfo(tables, options=options), lock_timeout=2.0)) as pool:
        yield pool
