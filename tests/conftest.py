"""What every test may ask for: a real Postgres server, and in it databases of its own; a real S3 server.

One server of each kind serves a test process; a database is cloned from a migrated template, in a tenth of a second.
Nothing has a fixed port or name, so any number of test processes may run at once.
"""

import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, contextmanager

import psycopg
import pytest
import pytest_asyncio
from hypothesis import settings
from psycopg import sql

from dispatcher.db.migrate import migrate
from dispatcher.db.pool import Pool, PoolConfig, open_pool
from kernel.embedded_postgres import EmbeddedPostgres
from tests.s3_server import ADMIN, S3Server, running_s3_server

_TEMPLATE = "trace_template"

# How long an example takes says how busy the machine is.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    """The server of this test process, with the product's settings."""
    with EmbeddedPostgres(tmp_path_factory.mktemp("postgres"), databases=(_TEMPLATE,)) as server:
        yield server


@pytest.fixture(scope="session")
def template_database(postgres: EmbeddedPostgres) -> str:
    """The name of a database with all migrations applied. Nobody connects to it, or it could not be cloned."""
    migrate(postgres.conninfo(_TEMPLATE))
    return _TEMPLATE


@pytest.fixture
def database(postgres: EmbeddedPostgres, template_database: str) -> Iterator[str]:
    """The conninfo of a fresh migrated database."""
    with _new_database(postgres, template_database) as conninfo:
        yield conninfo


@pytest.fixture
def new_database(postgres: EmbeddedPostgres, template_database: str) -> Iterator[Callable[[], str]]:
    """Makes further fresh migrated databases, for a test that compares some."""
    with ExitStack() as made:
        yield lambda: made.enter_context(_new_database(postgres, template_database))


@pytest.fixture
def empty_database(postgres: EmbeddedPostgres) -> Iterator[str]:
    """The conninfo of a fresh database without any table."""
    with _new_database(postgres, "template0") as conninfo:
        yield conninfo


@pytest_asyncio.fixture
async def pool(database: str) -> AsyncIterator[Pool]:
    """The dispatcher's pool on a fresh migrated database."""
    async with open_pool(PoolConfig(database)) as opened:
        yield opened


@pytest.fixture(scope="session")
def running_s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """The S3 server of this test process."""
    with running_s3_server(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def s3(running_s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> S3Server:
    """The S3 server, with its credential in the environment of this process and of those that it starts."""
    for name, value in ADMIN.environment.items():
        monkeypatch.setenv(name, value)
    return running_s3


@contextmanager
def _new_database(server: EmbeddedPostgres, template: str) -> Iterator[str]:
    name = f"test_{uuid.uuid4().hex}"
    statement = sql.SQL("create database {} template {}").format(sql.Identifier(name), sql.Identifier(template))
    with psycopg.connect(server.conninfo("postgres"), autocommit=True) as connection:
        connection.execute(statement)
    try:
        yield server.conninfo(name)
    finally:
        with psycopg.connect(server.conninfo("postgres"), autocommit=True) as connection:
            connection.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))
