"""What every connection of the dispatcher is like."""

import asyncio
import datetime
import uuid
from contextlib import AbstractAsyncContextManager

import psycopg
import pytest
from psycopg.rows import TupleRow

from dispatcher.db import pool as pool_module
from dispatcher.db.errors import OutcomeUnknown, UnsafeDurability
from dispatcher.db.pool import Pool, PoolConfig, open_pool, single_statements, transaction, unflushed_transaction

_DIES_IN_COMMIT = """
create table fragile (value int);
create function die() returns trigger language plpgsql as
    $$ begin perform pg_terminate_backend(pg_backend_pid()); return null; end $$;
create constraint trigger die after insert on fragile deferrable initially deferred
    for each row when (new.value = 13) execute function die();
"""


async def test_every_wait_has_a_limit(pool: Pool) -> None:
    names = ("lock_timeout", "statement_timeout", "idle_in_transaction_session_timeout", "application_name")
    async with transaction(pool) as connection:
        cursor = await connection.execute(f"select {', '.join(f'current_setting({name!r})' for name in names)}")
        assert await cursor.fetchone() == ("5s", "30s", "10s", "trace-dispatcher")


async def test_values_come_back_as_python_means_them(pool: Pool) -> None:
    values = (uuid.uuid4(), b"\x00\xff", datetime.datetime.now(datetime.UTC))
    async with transaction(pool) as connection:
        cursor = await connection.execute("select %s::uuid, %s::bytea, %s::timestamptz", values)
        back = await cursor.fetchone()
    assert back == values
    assert back[2].utcoffset() == datetime.timedelta(0)


async def _execute(pool: Pool, *statements: str) -> None:
    async with transaction(pool) as connection:
        for statement in statements:
            await connection.execute(statement)


async def _write_and_fail(block: AbstractAsyncContextManager[psycopg.AsyncConnection[TupleRow]], value: int) -> None:
    async with block as connection:
        await connection.execute("insert into written values (%s)", (value,))
        await connection.execute("select 1 / 0")


async def test_a_block_is_a_transaction(pool: Pool) -> None:
    await _execute(pool, "create table written (value int)")
    with pytest.raises(psycopg.errors.DivisionByZero):
        await _execute(pool, "insert into written values (1)", "select 1 / 0")
    await _execute(pool, "insert into written values (2)")
    async with transaction(pool) as connection:
        assert await (await connection.execute("select value from written")).fetchall() == [(2,)]


async def test_an_unflushed_block_is_a_transaction_that_does_not_wait_for_the_disk(pool: Pool) -> None:
    await _execute(pool, "create table written (value int)")
    async with unflushed_transaction(pool) as connection:
        cursor = await connection.execute("show synchronous_commit")
        assert await cursor.fetchone() == ("off",)
        await connection.execute("insert into written values (1)")
    with pytest.raises(psycopg.errors.DivisionByZero):
        await _write_and_fail(unflushed_transaction(pool), 2)
    async with transaction(pool) as connection:
        assert await (await connection.execute("select value from written")).fetchall() == [(1,)]
        assert await (await connection.execute("show synchronous_commit")).fetchone() == ("on",)


async def test_a_block_that_is_cancelled_at_its_first_statement_ends_as_cancelled(pool: Pool) -> None:
    """Not as a failure of the database, which a duty would outlive: a dispatcher that drains would wait for it."""

    async def cancelled_at_once() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()  # takes effect where the task has to wait for the first time: for the answer to BEGIN
        async with unflushed_transaction(pool):
            pytest.fail("it was cancelled before")

    for _ in range(pool.max_size + 1):  # and its connection can be used again
        with pytest.raises(asyncio.CancelledError):
            await asyncio.create_task(cancelled_at_once())
    await _execute(pool, "select 1")


async def test_each_of_single_statements_is_a_transaction(pool: Pool) -> None:
    await _execute(pool, "create table written (value int)")
    with pytest.raises(psycopg.errors.DivisionByZero):
        await _write_and_fail(single_statements(pool), 1)
    async with transaction(pool) as connection:
        assert await (await connection.execute("select value from written")).fetchall() == [(1,)]


async def test_why_single_statements_were_left_is_told_whatever_they_leave_open(pool: Pool) -> None:
    async def leave_open() -> None:
        async with single_statements(pool) as connection:
            await connection.execute("begin")
            raise LookupError

    with pytest.raises(LookupError):
        await leave_open()


async def test_a_connection_that_was_cut_while_it_rested_fails_nobody(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool_module, "_RESTED_SECONDS", 0.0)
    await _execute(
        pool,
        "select pg_terminate_backend(pid, 5000) from pg_stat_activity"
        " where application_name = 'trace-dispatcher' and datname = current_database() and pid <> pg_backend_pid()",
    )
    await asyncio.gather(*(_execute(pool, "select pg_sleep(0.1)") for _ in range(pool.min_size)))


async def test_statements_are_prepared(pool: Pool) -> None:
    async with transaction(pool) as connection:
        for _ in range(3):
            await connection.execute("select %s::int", (1,))
        cursor = await connection.execute("select count(*) from pg_prepared_statements where statement ~ '::int'")
        assert await cursor.fetchone() == (1,)


async def test_a_connection_lost_in_commit_is_an_unknown_outcome(pool: Pool) -> None:
    await _execute(pool, _DIES_IN_COMMIT)
    with pytest.raises(OutcomeUnknown):
        await _execute(pool, "insert into fragile values (13)")
    await _execute(pool, "insert into fragile values (14)")  # the pool replaces what it lost


async def test_a_refused_commit_is_not_an_unknown_outcome(pool: Pool) -> None:
    await _execute(pool, "create table once (value int unique deferrable initially deferred)")
    with pytest.raises(psycopg.errors.UniqueViolation):
        await _execute(pool, "insert into once values (1), (1)")


async def test_forgetful_servers_are_refused_unless_allowed(database: str) -> None:
    forgetful = psycopg.conninfo.make_conninfo(database, options="-c synchronous_commit=off")
    with pytest.raises(UnsafeDurability, match="synchronous_commit = off"):
        async with open_pool(PoolConfig(forgetful)):
            pass
    async with open_pool(PoolConfig(forgetful, allow_unsafe_durability=True)) as pool, transaction(pool):
        pass
