"""A session that Postgres ends while a pipeline is open, as a restart, a fail-over and pg_terminate_backend do: between
psycopg's look at the socket and its write, so that the server's last words are still unread."""

import asyncio
import itertools
from collections.abc import Generator, Iterator, Sequence
from typing import Any

import psycopg
import pytest
from psycopg.waiting import Ready, Wait

from dispatcher.db.batcher import Batcher, Kind
from dispatcher.db.errors import OutcomeUnknown
from dispatcher.db.pipeline import pipelined
from dispatcher.db.pool import Pool, transaction
from dispatcher.db.rows import Connection

Ender = psycopg.Connection[tuple[Any, ...]]

STATEMENT, COMMIT, END = 1, 2, 3
"""Which look of a block with one more statement is the last one. By the third, COMMIT may be done."""


@pytest.fixture
def ender(database: str) -> Iterator[Ender]:
    """Who ends sessions. There is a table to write to."""
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("create table written (value int)")
        yield connection


def _end_at(look: int, connection: Connection, ender: Ender, monkeypatch: pytest.MonkeyPatch) -> None:
    """The so many-th look from here on says that there is nothing to read, and the session ends right after it."""
    looks, wait = itertools.count(1), connection.wait

    def told(steps: Generator[Wait, Ready | int | None, Any]) -> Generator[Wait, Ready | int, Any]:
        ready: Ready | int | None = None
        for first in itertools.chain([True], itertools.repeat(False)):
            try:
                wanted = steps.send(ready)
            except StopIteration as done:
                return done.value
            if first and wanted == Wait.RW and next(looks) == look:
                ender.execute("select pg_terminate_backend(%s, 5000)", (connection.info.backend_pid,))
                ready = Ready.W
            else:
                ready = yield wanted

    monkeypatch.setattr(connection, "wait", lambda steps: wait(told(steps)))


async def _write(connection: Connection, value: int) -> None:
    await connection.execute("insert into written values (%s)", (value,))


async def _written(pool: Pool) -> list[tuple[int]]:
    async with transaction(pool) as connection:
        return await (await connection.execute("select value from written order by value")).fetchall()


@pytest.mark.parametrize(
    ("look", "said", "kept"),
    [(STATEMENT, psycopg.OperationalError, [0]), (COMMIT, OutcomeUnknown, [0]), (END, OutcomeUnknown, [0, 1])],
)
async def test_what_a_block_raises_and_that_nobody_keeps_its_connection(
    pool: Pool, ender: Ender, monkeypatch: pytest.MonkeyPatch, look: int, said: type[Exception], kept: list[int]
) -> None:
    async def write() -> None:
        async with pipelined(connection):
            await (await connection.execute("select 1")).fetchall()
            _end_at(look, connection, ender, monkeypatch)
            await _write(connection, 1)

    async with pool.connection() as connection:
        with pytest.raises(said):
            await write()
        assert connection.closed
    assert len(await _written(pool)) in kept


@pytest.mark.parametrize(("look", "first"), [(STATEMENT, [1]), (COMMIT, OutcomeUnknown), (END, OutcomeUnknown)])
async def test_a_batcher_goes_on(
    pool: Pool, ender: Ender, monkeypatch: pytest.MonkeyPatch, look: int, first: object
) -> None:
    """And repeats what it had not sent a COMMIT of."""
    to_be_ended = [True]

    async def finish(connection: Connection, ops: Sequence[int], results: Sequence[int]) -> None:
        if to_be_ended:
            to_be_ended.clear()
            _end_at(look, connection, ender, monkeypatch)
        await _write(connection, ops[0])

    async def nothing(connection: Connection, ops: Sequence[int]) -> Sequence[int]:
        return ops

    async def submit(value: int) -> object:
        try:
            return await batcher.submit(kind, [value])
        except OutcomeUnknown:
            return OutcomeUnknown

    kind = Kind("write", nothing, cost=lambda op: 1, key=lambda op: op, finish=finish)
    batcher = Batcher(pool, [kind])
    async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
        tasks.create_task(batcher.run())
        assert [await submit(value) for value in (1, 2)] == [first, [2]]
        await batcher.stop()
    assert (2,) in await _written(pool)
