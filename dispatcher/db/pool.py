"""The pool of connections to the system database, and what every connection of it is like.

One rule on transactions: connections are *not* in autocommit. The block around a connection is the transaction:

    async with transaction(pool) as connection:     # BEGIN with the first statement
        ...                                         # COMMIT at the end, ROLLBACK when an exception leaves the block

`connection.transaction()` inside it is a savepoint. No RPC, no file and no object store is waited for inside a block.

Every wait has a limit, set when the connection starts: for a lock, for a statement, for a client that fell asleep in a
transaction. Statements are prepared from their second use on (all of them stand in `.sql` files, so there are few).
Values come back as Python means them: uuid as UUID, bytea as bytes, timestamptz as aware datetime in UTC.
"""

import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import psycopg
from psycopg import AsyncConnection
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.pq import PipelineStatus, TransactionStatus
from psycopg.rows import TupleRow
from psycopg_pool import AsyncConnectionPool

from dispatcher.db.arrays import send_lists_as_literals
from dispatcher.db.errors import OutcomeUnknown, UnsafeDurability
from dispatcher.db.statements import Statements

Pool = AsyncConnectionPool[AsyncConnection[TupleRow]]

_RESTED_SECONDS = 1.0
_sql = Statements.load("dispatcher.db")


@dataclass(frozen=True, slots=True)
class PoolConfig:
    """Times are in seconds."""

    conninfo: str
    application_name: str = "trace-dispatcher"
    min_size: int = 2
    max_size: int = 10
    acquire_timeout: float = 10.0
    connect_timeout: int = 10
    lock_timeout: float = 5.0
    statement_timeout: float = 30.0
    idle_in_transaction_timeout: float = 10.0
    allow_unsafe_durability: bool = False
    """Accept a server with fsync or synchronous_commit off, which may lose accepted events. For experiments only."""


@contextlib.asynccontextmanager
async def open_pool(config: PoolConfig) -> AsyncIterator[Pool]:
    """An open pool, closed at the end of the block. Raises psycopg_pool.PoolTimeout where there is no server.

    Raises UnsafeDurability when the server may forget what it has committed.
    """
    rest = _Rest()
    pool: Pool = AsyncConnectionPool(
        _conninfo(config),
        connection_class=AsyncConnection[TupleRow],
        kwargs={"prepare_threshold": 1},
        min_size=config.min_size,
        max_size=config.max_size,
        timeout=config.acquire_timeout,
        check=rest.check,
        reset=rest.begin,
        name=config.application_name,
        configure=_configure,
        open=False,
    )
    await pool.open(wait=True, timeout=config.acquire_timeout)
    try:
        if not config.allow_unsafe_durability:
            await _require_durability(pool)
        yield pool
    finally:
        await pool.close()


class _Rest:
    """Connections that were not used for a while are checked: each one that a restarted server has cut would otherwise
    fail a caller. One that was used just now is as good as checked, and the check would be a round trip for each
    transaction."""

    def __init__(self) -> None:
        self._since: WeakKeyDictionary[AsyncConnection[TupleRow], float] = WeakKeyDictionary()

    async def begin(self, connection: AsyncConnection[TupleRow]) -> None:
        """It comes back to the pool."""
        self._since[connection] = time.monotonic()

    async def check(self, connection: AsyncConnection[TupleRow]) -> None:
        """It leaves the pool."""
        if time.monotonic() - self._since.get(connection, 0.0) > _RESTED_SECONDS:
            await AsyncConnectionPool.check_connection(connection)


@contextlib.asynccontextmanager
async def transaction(pool: Pool) -> AsyncIterator[AsyncConnection[TupleRow]]:
    """One transaction on a connection of the pool. Raises OutcomeUnknown when the connection is lost in COMMIT."""
    async with pool.connection() as connection:
        yield connection
        await commit(connection)


@contextlib.asynccontextmanager
async def single_statements(pool: Pool) -> AsyncIterator[AsyncConnection[TupleRow]]:
    """A connection of the pool on which each statement is a transaction of its own: without BEGIN and COMMIT."""
    async with pool.connection() as connection:
        await connection.set_autocommit(True)
        try:
            yield connection
        finally:
            await end_autocommit(connection)


@contextlib.asynccontextmanager
async def unflushed_transaction(pool: Pool) -> AsyncIterator[AsyncConnection[TupleRow]]:
    """A transaction whose COMMIT does not wait for the disk: for what a crash of the server may undo, since it is then
    simply done again. Whoever sees what it wrote and commits durably makes it durable too."""
    async with single_statements(pool) as connection:
        try:  # from here on: cancelled at its first statement, too, the connection goes back without a transaction
            await connection.execute(_sql.begin_unflushed, prepare=False)
            yield connection
            await commit(connection)
        except BaseException:
            await roll_back(connection)
            raise


def rests(connection: AsyncConnection[TupleRow]) -> bool:
    """Nothing is open on it: whoever has it next may begin. One that is not `closed` may have lost its session all the
    same: where that ends in a pipeline, psycopg may be left in the middle of an answer that never comes."""
    info = connection.info
    return info.transaction_status is TransactionStatus.IDLE and info.pipeline_status is PipelineStatus.OFF


async def roll_back(connection: AsyncConnection[TupleRow]) -> None:
    """ROLLBACK. Afterwards the connection rests or is closed. Raises nothing but cancellation."""
    try:
        with contextlib.suppress(psycopg.Error):
            await connection.rollback()
    finally:
        if not rests(connection):
            await connection.close()


async def end_autocommit(connection: AsyncConnection[TupleRow]) -> None:
    """It is as the pool has them again, or closed. Raises nothing: the error stays for which a block was left."""
    if rests(connection):
        await connection.set_autocommit(False)
    else:
        await connection.close()


async def commit(connection: AsyncConnection[TupleRow]) -> None:
    """COMMIT; tells a refused one (psycopg.Error: nothing happened) from a lost one (OutcomeUnknown)."""
    try:
        await connection.commit()
    except psycopg.Error as error:
        if connection.closed:
            raise OutcomeUnknown("the connection was lost in COMMIT: repeat by key") from error
        raise


async def _configure(connection: AsyncConnection[TupleRow]) -> None:
    send_lists_as_literals(connection)


def _conninfo(config: PoolConfig) -> str:
    limits = {
        "lock_timeout": config.lock_timeout,
        "statement_timeout": config.statement_timeout,
        "idle_in_transaction_session_timeout": config.idle_in_transaction_timeout,
    }
    options = [str(conninfo_to_dict(config.conninfo).get("options") or "")]
    options += [f"-c {name}={round(seconds * 1000)}" for name, seconds in limits.items()]
    # Pages of a store without moving parts: at the default of 4 a manifest of many files would be read by a scan of
    # all.
    options += ["-c timezone=UTC", "-c random_page_cost=1.1"]
    return make_conninfo(
        config.conninfo,
        application_name=config.application_name,
        connect_timeout=config.connect_timeout,
        options=" ".join(options).strip(),
    )


async def _require_durability(pool: Pool) -> None:
    async with pool.connection() as connection:
        cursor = await connection.execute(_sql.unsafe_durability)
        off = [f"{name} = {setting}" for name, setting in await cursor.fetchall()]
    if off:
        raise UnsafeDurability(
            f"the server runs with {', '.join(off)}: a crash could undo accepted events. Turn it on,"
            " or allow it with allow_unsafe_durability"
        )
