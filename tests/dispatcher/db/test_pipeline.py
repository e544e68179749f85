"""Transactions whose statements do not wait for each other's answers: transactions all the same."""

import asyncio

import psycopg
import pytest

from dispatcher.db import pipeline
from dispatcher.db.errors import OutcomeUnknown
from dispatcher.db.pipeline import pipelined, together
from dispatcher.db.pool import Pool, transaction
from dispatcher.db.rows import Connection

_TABLES = """
create table written (value int);
create function die() returns trigger language plpgsql as
    $$ begin perform pg_terminate_backend(pg_backend_pid()); return null; end $$;
create constraint trigger die after insert on written deferrable initially deferred
    for each row when (new.value = 13) execute function die();
"""
_SETTINGS = ("plan_cache_mode", "enable_seqscan", "transaction_timeout", "synchronous_commit")


async def _tables(pool: Pool) -> None:
    async with transaction(pool) as connection:
        await connection.execute(_TABLES)


async def _written(pool: Pool) -> list[int]:
    async with transaction(pool) as connection:
        return await _values(connection, "select value from written order by value")


async def _values(connection: Connection, statement: str) -> list[int]:
    cursor = await connection.execute(statement)
    return [row[0] for row in await cursor.fetchall()]


async def _write(connection: Connection, value: int) -> None:
    await connection.execute("insert into written values (%s)", (value,))


async def _settings(connection: Connection) -> tuple[object, ...] | None:
    cursor = await connection.execute(f"select {', '.join(f'current_setting({name!r})' for name in _SETTINGS)}")
    return await cursor.fetchone()


async def test_a_block_is_a_transaction(pool: Pool) -> None:
    await _tables(pool)
    async with pool.connection() as connection, pipelined(connection):
        await _write(connection, 1)
        assert await _values(connection, "select value from written") == [1]
        await _write(connection, 2)
        assert await _written(pool) == []
    assert await _written(pool) == [1, 2]


async def test_what_follows_a_statement_that_fails_is_not_run_and_nothing_is_kept(pool: Pool) -> None:
    await _tables(pool)

    async def fails() -> None:
        async with pipelined(connection):
            await _write(connection, 1)
            await connection.execute("select 1 / 0")
            await _write(connection, 2)

    async with pool.connection() as connection:
        with pytest.raises(psycopg.errors.DivisionByZero):  # said by a later call, or at the end of the block
            await fails()
        async with pipelined(connection):  # the connection is as good as before
            await _write(connection, 3)
    assert await _written(pool) == [3]


async def test_a_block_that_raises_keeps_nothing(pool: Pool) -> None:
    await _tables(pool)

    async def raises() -> None:
        async with pipelined(connection):
            await _write(connection, 1)
            raise LookupError

    async with pool.connection() as connection:
        with pytest.raises(LookupError):
            await raises()
        assert await _values(connection, "select value from written") == []


async def test_a_connection_that_is_lost_in_commit_is_an_unknown_outcome(pool: Pool) -> None:
    await _tables(pool)
    with pytest.raises(OutcomeUnknown):
        async with pool.connection() as connection, pipelined(connection):
            await _write(connection, 13)


async def test_a_connection_that_is_lost_before_commit_is_sent_is_no_unknown_outcome(pool: Pool) -> None:
    with pytest.raises(psycopg.OperationalError):
        async with pool.connection() as connection, pipelined(connection):
            await _values(connection, "select pg_terminate_backend(pg_backend_pid())::int")


@pytest.mark.parametrize("value", [1, 13])
async def test_a_block_that_is_cancelled_leaves_a_connection_that_can_be_used_or_none(pool: Pool, value: int) -> None:
    await _tables(pool)

    async def waits_for_a_lock() -> None:
        async with pool.connection() as connection, pipelined(connection):
            await _write(connection, value)
            begun.set()
            await connection.execute("lock table written in access exclusive mode")
            await _values(connection, "select 1")

    begun = asyncio.Event()
    async with transaction(pool) as other:
        await _values(other, "select value from written")  # its lock is in the way
        waiting = asyncio.create_task(waits_for_a_lock())
        await begun.wait()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    for _ in range(pool.max_size + 1):
        async with pool.connection() as connection, pipelined(connection):
            assert await _values(connection, "select value from written") == []


async def test_what_a_program_locked_that_fell_asleep_is_free_again(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server does not count a transaction as idle whose pipeline is open."""
    await _tables(pool)
    monkeypatch.setattr(pipeline, "LIMIT", "100ms")

    async def sleeps() -> None:
        async with pool.connection() as connection, pipelined(connection):
            await _values(connection, "select 1 from pg_advisory_xact_lock(1)")
            locked.set()
            await asyncio.Event().wait()

    locked = asyncio.Event()
    sleeping = asyncio.create_task(sleeps())
    await locked.wait()
    async with transaction(pool) as connection:  # waits for 5 s at most
        await connection.execute("select pg_advisory_xact_lock(1)")
    sleeping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sleeping


@pytest.mark.parametrize("flushed", [True, False])
@pytest.mark.parametrize("planned_once", [True, False])
async def test_plans_and_the_wait_for_the_disk_are_those_of_the_block_alone(
    pool: Pool, flushed: bool, planned_once: bool
) -> None:
    async with pool.connection() as connection:
        before = await _settings(connection)
        await connection.rollback()
        async with pipelined(connection, flushed=flushed, planned_once=planned_once):
            within = await _settings(connection)
        plans = ("force_generic_plan", "off") if planned_once else ("auto", "on")
        assert within == (*plans, pipeline.LIMIT, "on" if flushed else "off")
        assert await _settings(connection) == before == ("auto", "on", "0", "on")


async def test_what_is_sent_together_is_done_in_the_order_in_which_it_is_named(pool: Pool) -> None:
    async with pool.connection() as connection, pipelined(connection):
        await connection.execute("create sequence turn")
        turn = "select nextval('turn')::int"
        answers = await together(_values(connection, turn), _values(connection, turn), _values(connection, turn))
    assert answers == ([1], [2], [3])


async def test_of_what_is_sent_together_the_first_failure_is_told_once_all_is_done(pool: Pool) -> None:

    async def fails() -> None:
        async with pipelined(connection):
            await together(
                _values(connection, "select 1"),
                _values(connection, "select 1 / 0"),
                _values(connection, "select 'x'::int"),
            )

    async with pool.connection() as connection:
        with pytest.raises(psycopg.errors.DivisionByZero):
            await fails()
        async with pipelined(connection):
            assert await _values(connection, "select 1") == [1]


async def test_of_what_is_sent_together_the_cause_is_told_though_another_one_heard_of_it(pool: Pool) -> None:
    heard = asyncio.Event()

    async def divide() -> list[int]:
        cursor = await connection.execute("select 1 / 0")
        await heard.wait()
        return [row[0] for row in await cursor.fetchall()]

    async def hear() -> list[int]:
        try:
            return await _values(connection, "select 1")
        finally:
            heard.set()

    async def fails() -> None:
        async with pipelined(connection):
            await together(divide(), hear())

    async with pool.connection() as connection:
        with pytest.raises(psycopg.errors.DivisionByZero):
            await fails()
