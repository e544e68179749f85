"""What every connection of the dispatcher is like."""

import datetime
import uuid

import psycopg
import pytest

from dispatcher.db.errors import OutcomeUnknown, UnsafeDurability
from dispatcher.db.pool import Pool, PoolConfig, open_pool, transaction

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


async def test_a_block_is_a_transaction(pool: Pool) -> None:
    await _execute(pool, "create table written (value int)")
    with pytest.raises(psycopg.errors.DivisionByZero):
        await _execute(pool, "insert into written values (1)", "select 1 / 0")
    await _execute(pool, "insert into written values (2)")
    async with transaction(pool) as connection:
        assert await (await connection.execute("select value from written")).fetchall() == [(2,)]


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
