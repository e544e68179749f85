"""One bad operation, one bad answer: the others of its transaction commit."""

import asyncio
from collections.abc import Sequence

import psycopg

from dispatcher.db.batcher import Batcher, Committed, Connection, Held, Kind, Quarantined
from dispatcher.db.pool import Pool
from tests.dispatcher.db.writing import COMPLETE, EMIT, GatedClock, Write, insert, keys_of, rows, running


async def test_a_poisoned_operation_is_quarantined_and_the_others_commit(written_pool: Pool, tables: str) -> None:
    bad = {0, 17, 500, 501, 999}
    commits = list[Committed]()
    async with running(Batcher(written_pool, [EMIT], observe=commits.append)) as batcher:
        answers = await batcher.submit(EMIT, [Write(key, -1 if key in bad else 1) for key in range(1_000)])
    assert keys_of(answers) == [key for key in range(1_000) if key not in bad]
    for key in bad:
        verdict = answers[key]
        assert isinstance(verdict, Quarantined)
        assert isinstance(verdict.error, psycopg.errors.CheckViolation)
    assert rows(tables, "select count(*), count(distinct tx) from written") == [(995, 1)]
    assert commits[0].quarantined == 5


async def test_a_complete_does_not_pass_where_its_emit_was_quarantined(written_pool: Pool, tables: str) -> None:
    clock = GatedClock()
    async with running(Batcher(written_pool, [EMIT, COMPLETE], clock=clock)) as batcher:
        emits = asyncio.ensure_future(batcher.submit(EMIT, [Write(1, -1), Write(2)]))
        completes = asyncio.ensure_future(batcher.submit(COMPLETE, [Write(1), Write(2)]))
        await asyncio.sleep(0)
        clock.gate.set()
        answers = await emits + await completes
    assert keys_of(answers) == [2, 2]
    verdict = answers[2]
    assert isinstance(verdict, Quarantined)
    assert verdict.follows
    assert rows(tables) == [("emit", 2, 0), ("complete", 2, 0)]


async def test_a_complete_is_held_where_its_emit_is_to_be_repeated(written_pool: Pool, tables: str) -> None:
    async def postpone(connection: Connection, ops: Sequence[Write]) -> Sequence[int]:
        return [-1 if op.value == 7 else op.key for op in ops]

    emit = Kind("emit", postpone, cost=lambda op: op.cost, key=lambda op: op.key, holds=lambda result: result == -1)
    async with running(Batcher(written_pool, [emit, COMPLETE])) as batcher:
        ops = [(emit, Write(1, 7)), (COMPLETE, Write(1)), (emit, Write(2)), (COMPLETE, Write(2))]
        assert await batcher.submit_all(ops) == [-1, Held(), 2, 2]
    assert rows(tables) == [("complete", 2, 0)]


async def test_poison_that_only_commit_finds_is_quarantined(written_pool: Pool, tables: str) -> None:
    async with running(Batcher(written_pool, [EMIT])) as batcher:
        answers = await batcher.submit(EMIT, [Write(key, 404 if key == 30 else 1) for key in range(100)])
    assert keys_of(answers) == [key for key in range(100) if key != 30]
    verdict = answers[30]
    assert isinstance(verdict, Quarantined)
    assert isinstance(verdict.error, psycopg.errors.ForeignKeyViolation)
    assert rows(tables, "select count(*), count(distinct tx) from written") == [(99, 1)]


async def test_poison_in_the_last_step_is_quarantined(written_pool: Pool, tables: str) -> None:
    async def finish(connection: Connection, ops: Sequence[Write], results: Sequence[int]) -> None:
        await connection.execute("select 1 / (30 - n) from unnest(%s::int[]) n", (list(results),))

    kind = Kind("emit", insert("emit"), cost=lambda op: op.cost, key=lambda op: op.key, finish=finish)
    async with running(Batcher(written_pool, [kind])) as batcher:
        answers = await batcher.submit(kind, [Write(key) for key in range(100)])
    assert keys_of(answers) == [key for key in range(100) if key != 30]
    assert rows(tables, "select count(*) from written") == [(99,)]
