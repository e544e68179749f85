"""Writes of many callers into one table, and the batcher that takes them together."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass

import psycopg

from dispatcher.db.batcher import Batcher, Connection, Held, Kind, LoopClock, Quarantined

# Values with a meaning: below 0 fails at once, 13 kills its backend in COMMIT, 404 fails in COMMIT.
TABLES = """
create table parent (value int primary key);
insert into parent select generate_series(0, 403);
create table written (
    seq bigint generated always as identity,
    kind text not null,
    key int not null,
    value int not null check (value >= 0) references parent deferrable initially deferred,
    tx xid8 not null default pg_current_xact_id()
);
create function die() returns trigger language plpgsql as
    $$ begin perform pg_terminate_backend(pg_backend_pid()); return null; end $$;
create constraint trigger die after insert on written deferrable initially deferred
    for each row when (new.value = 13) execute function die();
"""


@dataclass(frozen=True, slots=True)
class Write:
    key: int
    value: int = 0
    cost: int = 1


def insert(kind: str) -> Callable[[Connection, Sequence[Write]], Awaitable[Sequence[int]]]:
    async def apply(connection: Connection, ops: Sequence[Write]) -> Sequence[int]:
        cursor = await connection.execute(
            "insert into written (kind, key, value) select %s, key, value"
            " from unnest(%s::int[], %s::int[]) with ordinality as op (key, value, n) order by n returning key",
            (kind, [op.key for op in ops], [op.value for op in ops]),
        )
        return [row[0] for row in await cursor.fetchall()]

    return apply


def kind_of(name: str, apply: Callable[[Connection, Sequence[Write]], Awaitable[Sequence[int]]]) -> Kind[Write, int]:
    return Kind(name, apply, cost=lambda op: op.cost, key=lambda op: op.key)


EMIT = kind_of("emit", insert("emit"))
COMPLETE = kind_of("complete", insert("complete"))


class GatedClock(LoopClock):
    """Lingers until the test opens the gate."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.lingers = asyncio.Event()

    async def sleep(self, seconds: float) -> None:
        self.lingers.set()
        await self.gate.wait()


@contextlib.asynccontextmanager
async def running(batcher: Batcher) -> AsyncIterator[Batcher]:
    async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
        tasks.create_task(batcher.run())
        try:
            yield batcher
        finally:
            await batcher.stop()


def rows(conninfo: str, query: str = "select kind, key, value from written order by seq") -> list[tuple[object, ...]]:
    with psycopg.connect(conninfo) as connection:
        return connection.execute(query).fetchall()


def keys_of(answers: Sequence[int | Quarantined | Held]) -> list[int]:
    return [answer for answer in answers if isinstance(answer, int)]
