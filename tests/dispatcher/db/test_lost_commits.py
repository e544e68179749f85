"""What callers hear where a transaction is not answered: repeated, nothing done, or unknown."""

import asyncio
import contextlib
import os
import signal
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import psycopg
import pytest

from dispatcher.db.batcher import Batcher, BatcherConfig, Connection, Kind
from dispatcher.db.errors import OutcomeUnknown, TransactionFailed
from dispatcher.db.pool import Pool, PoolConfig, open_pool
from kernel.embedded_postgres import EmbeddedPostgres
from tests.dispatcher.db.writing import EMIT, Write, insert, kind_of, rows, running


async def test_a_deadlock_is_repeated_and_nobody_notices(written_pool: Pool, tables: str) -> None:
    first_is_locked, other_waits = asyncio.Event(), asyncio.Event()
    tries = 0

    async def update_two(connection: Connection, ops: Sequence[Write]) -> Sequence[int]:
        nonlocal tries
        tries += 1
        await connection.execute("update parent set value = value where value = 1")
        first_is_locked.set()
        await other_waits.wait()
        await connection.execute("update parent set value = value where value = 2")
        return [op.key for op in ops]

    kind = kind_of("update", update_two)
    async with running(Batcher(written_pool, [kind])) as batcher, asyncio.TaskGroup() as tasks:
        # The other never looks for deadlocks, and waits first: so the batcher's transaction is always the victim.
        other = await psycopg.AsyncConnection.connect(tables, options="-c deadlock_timeout=1h")
        async with other:
            await other.execute("update parent set value = value where value = 2")
            call = tasks.create_task(batcher.submit(kind, [Write(7)]))
            await first_is_locked.wait()
            waiting = tasks.create_task(other.execute("update parent set value = value where value = 1"))
            blocked = f"select 1 where cardinality(pg_blocking_pids({other.info.backend_pid})) > 0"
            while not rows(tables, blocked):  # noqa: ASYNC110  Postgres has no signal for it
                await asyncio.sleep(0)
            other_waits.set()
            await waiting
        assert await call == [7]
    assert tries == 2


async def test_a_lock_that_is_never_freed_ends_as_nothing_done(tables: str) -> None:
    async def update(connection: Connection, ops: Sequence[Write]) -> Sequence[int]:
        await insert("update")(connection, ops)
        await connection.execute("update parent set value = value where value = 1")
        return [op.key for op in ops]

    kind = kind_of("update", update)
    with psycopg.connect(tables) as other:
        other.execute("update parent set value = value where value = 1")
        config = BatcherConfig(max_attempts=2)
        async with (
            open_pool(PoolConfig(tables, lock_timeout=0.02)) as pool,
            running(Batcher(pool, [kind], config)) as batcher,
        ):
            with pytest.raises(TransactionFailed, match="2 attempts"):
                await batcher.submit(kind, [Write(1), Write(2)])
        assert rows(tables) == []


async def test_a_connection_lost_in_commit_is_an_unknown_outcome(written_pool: Pool) -> None:
    async with running(Batcher(written_pool, [EMIT])) as batcher:
        with pytest.raises(OutcomeUnknown):
            await batcher.submit(EMIT, [Write(1, 13), Write(2)])
        assert await batcher.submit(EMIT, [Write(3)]) == [3]


async def _terminated(connection: Connection) -> None:
    await connection.execute("select pg_terminate_backend(pg_backend_pid())")


async def _asleep_for_too_long(connection: Connection) -> None:
    for limit in ("0", "1ms"):  # one that runs already would go on
        cursor = await connection.execute("select set_config('transaction_timeout', %s, true)", (limit,))
        await cursor.fetchone()
    await _readable(connection.fileno())


@pytest.mark.parametrize("lose", [_terminated, _asleep_for_too_long])
async def test_a_connection_lost_before_commit_is_sent_is_repeated(
    written_pool: Pool, tables: str, lose: Callable[[Connection], Awaitable[None]]
) -> None:
    tries = 0

    async def finish(connection: Connection, ops: Sequence[Write], results: Sequence[int]) -> None:
        nonlocal tries
        tries += 1
        if tries <= 2:
            await lose(connection)
            await (await connection.execute("select 1")).fetchone()

    kind = Kind("emit", insert("emit"), cost=lambda op: op.cost, key=lambda op: op.key, finish=finish)
    async with running(Batcher(written_pool, [kind])) as batcher:
        assert await batcher.submit(kind, [Write(1)]) == [1]
    assert rows(tables) == [("emit", 1, 0)]


async def test_after_sigkill_of_the_server_callers_repeat_and_all_is_there(tmp_path: Path) -> None:
    async def insert_once(connection: Connection, ops: Sequence[Write]) -> Sequence[int]:
        keys = sorted(op.key for op in ops)
        await connection.execute("insert into once select unnest(%s::int[]) on conflict do nothing", (keys,))
        return [op.key for op in ops]

    kind = kind_of("once", insert_once)
    server = EmbeddedPostgres(tmp_path)
    with server:
        with psycopg.connect(server.conninfo()) as connection:
            connection.execute("create table once (key int primary key)")
        under_way = asyncio.Event()

        async def caller(batcher: Batcher, number: int) -> None:
            for turn in range(20):
                while True:
                    with contextlib.suppress(OutcomeUnknown, TransactionFailed):
                        await batcher.submit(kind, [Write(number * 100 + turn)])
                        break
                if turn == 5:
                    under_way.set()

        async with (
            open_pool(PoolConfig(server.conninfo())) as pool,
            running(Batcher(pool, [kind])) as batcher,
            asyncio.TaskGroup() as tasks,
        ):
            for number in range(50):
                tasks.create_task(caller(batcher, number))
            await under_way.wait()
            assert server.pid is not None
            pid_fd = os.pidfd_open(server.pid)
            os.kill(server.pid, signal.SIGKILL)
            await _readable(pid_fd)
            os.close(pid_fd)
            server.start()
        assert rows(server.conninfo(), "select count(*) from once") == [(1_000,)]


async def _readable(fd: int) -> None:
    readable = asyncio.Event()
    asyncio.get_running_loop().add_reader(fd, readable.set)
    await readable.wait()
    asyncio.get_running_loop().remove_reader(fd)
