"""Many callers, one commit, and never an order that a task did not ask for."""

import asyncio
from collections.abc import Sequence

import pytest

from dispatcher.db.batcher import Batcher, BatcherConfig, Committed, Connection, Kind, Quarantined
from dispatcher.db.errors import OutcomeUnknown, Overloaded, Stopped
from dispatcher.db.pool import Pool
from tests.dispatcher.db.writing import COMPLETE, EMIT, GatedClock, Write, insert, kind_of, rows, running


async def test_what_a_thousand_callers_bring_is_one_transaction(written_pool: Pool, tables: str) -> None:
    clock, commits = GatedClock(), list[Committed]()
    async with running(Batcher(written_pool, [EMIT], clock=clock, observe=commits.append)) as batcher:
        calls = [asyncio.ensure_future(batcher.submit(EMIT, [Write(key)])) for key in range(1_000)]
        await asyncio.sleep(0)  # lets every caller hand in
        clock.gate.set()
        answers = await asyncio.gather(*calls)
    assert answers == [[key] for key in range(1_000)]
    assert [commit.operations for commit in commits] == [1_000]
    assert rows(tables, "select count(*), count(distinct tx) from written") == [(1_000, 1)]


async def test_it_lingers_for_callers_that_come_a_little_later(written_pool: Pool) -> None:
    clock, commits = GatedClock(), list[Committed]()
    async with running(Batcher(written_pool, [EMIT], clock=clock, observe=commits.append)) as batcher:
        early = asyncio.ensure_future(batcher.submit(EMIT, [Write(1)]))
        await asyncio.wait_for(clock.lingers.wait(), 10)
        late = asyncio.ensure_future(batcher.submit(EMIT, [Write(2)]))
        await asyncio.sleep(0)
        clock.gate.set()
        assert (await early, await late) == ([1], [2])
    assert len(commits) == 1


async def test_who_comes_alone_after_one_who_came_alone_waits_for_nobody(written_pool: Pool) -> None:
    clock = GatedClock()
    async with running(Batcher(written_pool, [EMIT], clock=clock)) as batcher:
        clock.gate.set()
        await batcher.submit(EMIT, [Write(1)])
        clock.gate.clear()
        clock.lingers.clear()
        async with asyncio.timeout(10):
            assert await batcher.submit(EMIT, [Write(2)]) == [2]
        assert not clock.lingers.is_set()


async def test_where_callers_came_together_the_next_one_is_waited_for(written_pool: Pool) -> None:
    clock, commits = GatedClock(), list[Committed]()
    async with running(Batcher(written_pool, [EMIT], clock=clock, observe=commits.append)) as batcher:
        clock.gate.set()
        await asyncio.gather(batcher.submit(EMIT, [Write(1)]), batcher.submit(EMIT, [Write(2)]))
        clock.gate.clear()
        clock.lingers.clear()
        early = asyncio.ensure_future(batcher.submit(EMIT, [Write(3)]))
        await asyncio.wait_for(clock.lingers.wait(), 10)
        late = asyncio.ensure_future(batcher.submit(EMIT, [Write(4)]))
        await asyncio.sleep(0)
        clock.gate.set()
        assert (await early, await late) == ([3], [4])
    assert [commit.operations for commit in commits] == [2, 2]


async def test_under_load_transactions_stay_few(written_pool: Pool) -> None:
    commits = list[Committed]()
    async with running(Batcher(written_pool, [EMIT], observe=commits.append)) as batcher:

        async def caller(number: int) -> None:
            for turn in range(5):
                assert await batcher.submit(EMIT, [Write(number, turn)]) == [number]

        await asyncio.gather(*(caller(number) for number in range(1_000)))
    assert sum(commit.operations for commit in commits) == 5_000
    assert len(commits) < 100


async def test_an_emit_runs_before_the_complete_that_shares_its_transaction(written_pool: Pool, tables: str) -> None:
    clock = GatedClock()
    async with running(Batcher(written_pool, [EMIT, COMPLETE], clock=clock)) as batcher:
        calls = [
            batcher.submit(EMIT, [Write(1)]),
            batcher.submit(COMPLETE, [Write(1)]),
            batcher.submit(EMIT, [Write(2)]),
        ]
        futures = [asyncio.ensure_future(call) for call in calls]
        await asyncio.sleep(0)
        clock.gate.set()
        await asyncio.gather(*futures)
    assert rows(tables) == [("emit", 1, 0), ("emit", 2, 0), ("complete", 1, 0)]
    assert rows(tables, "select count(distinct tx) from written") == [(1,)]


async def test_an_emit_after_a_complete_waits_for_the_next_transaction(written_pool: Pool, tables: str) -> None:
    clock = GatedClock()
    async with running(Batcher(written_pool, [EMIT, COMPLETE], clock=clock)) as batcher:
        calls = [
            batcher.submit(COMPLETE, [Write(1)]),
            batcher.submit(EMIT, [Write(1), Write(2)]),
            batcher.submit(COMPLETE, [Write(1, 9)]),
        ]
        futures = [asyncio.ensure_future(call) for call in calls]
        await asyncio.sleep(0)
        clock.gate.set()
        await asyncio.gather(*futures)
    assert rows(tables) == [("emit", 2, 0), ("complete", 1, 0), ("emit", 1, 0), ("complete", 1, 9)]
    assert rows(tables, "select count(distinct tx) from written") == [(2,)]


async def test_no_key_is_ever_reordered_by_many_workers(written_pool: Pool, tables: str) -> None:
    config = BatcherConfig(workers=3, linger=0, max_cost=7)
    async with running(Batcher(written_pool, [EMIT, COMPLETE], config)) as batcher:
        calls = []
        for turn in range(400):  # 5 keys, kinds mixed; the value is the turn in which it was handed in
            kind = COMPLETE if turn % 3 == 1 else EMIT
            calls.append(asyncio.ensure_future(batcher.submit(kind, [Write(turn % 5, _without_13(turn))])))
        await asyncio.gather(*calls)
    for key in range(5):
        turns = [value for _, of, value in rows(tables) if of == key]
        assert turns == sorted(_without_13(turn) for turn in range(400) if turn % 5 == key)


def _without_13(turn: int) -> int:
    return turn if turn < 13 else turn + 1


async def test_no_transaction_costs_more_than_the_limit(written_pool: Pool, tables: str) -> None:
    commits = list[Committed]()
    config = BatcherConfig(max_cost=100)
    async with running(Batcher(written_pool, [EMIT], config, observe=commits.append)) as batcher:
        ops = [Write(key, cost=30) for key in range(50)]
        assert await batcher.submit(EMIT, ops) == list(range(50))
        with pytest.raises(ValueError, match="more than ever fit"):
            await batcher.submit(EMIT, [Write(1, cost=101)])
    assert {commit.cost for commit in commits} <= {30, 60, 90}
    assert rows(tables, "select count(*) from written group by tx having count(*) > 3") == []


async def test_what_belongs_together_is_in_one_transaction_though_the_call_needs_several(
    written_pool: Pool, tables: str
) -> None:
    config = BatcherConfig(max_cost=100)
    async with running(Batcher(written_pool, [EMIT, COMPLETE], config)) as batcher:
        ops = [(kind, Write(key, cost=15)) for key in range(40) for kind in (EMIT, COMPLETE)]
        assert await batcher.submit_all(ops) == [op.key for _, op in ops]
    assert rows(tables, "select count(distinct tx) from written group by key having count(distinct tx) > 1") == []
    assert rows(tables, "select count(distinct tx) > 10 from written") == [(True,)]


async def test_a_full_queue_refuses_at_once(written_pool: Pool) -> None:
    batcher = Batcher(written_pool, [EMIT], BatcherConfig(max_cost=5, max_queued_cost=10))
    accepted = asyncio.ensure_future(batcher.submit(EMIT, [Write(key) for key in range(10)]))
    await asyncio.sleep(0)
    with pytest.raises(Overloaded) as refusal:
        await batcher.submit(EMIT, [Write(11)])
    assert (refusal.value.queued, refusal.value.limit) == (10, 10)
    async with running(batcher):
        assert await accepted == list(range(10))
        assert await batcher.submit(EMIT, [Write(11)]) == [11]


async def test_stop_commits_what_is_queued_and_takes_nothing_more(written_pool: Pool, tables: str) -> None:
    batcher = Batcher(written_pool, [EMIT], BatcherConfig(max_cost=10))
    async with running(batcher):
        calls = [asyncio.ensure_future(batcher.submit(EMIT, [Write(key)])) for key in range(100)]
        await asyncio.sleep(0)
        await batcher.stop()
        await batcher.stop()
        assert [await call for call in calls] == [[key] for key in range(100)]
        with pytest.raises(Stopped):
            await batcher.submit(EMIT, [Write(1)])
    assert rows(tables, "select count(*) from written") == [(100,)]


async def test_cancelled_in_a_transaction_its_callers_are_told(written_pool: Pool, tables: str) -> None:
    inside, never = asyncio.Event(), asyncio.Event()

    async def apply(connection: Connection, ops: Sequence[Write]) -> Sequence[int]:
        answers = await insert("emit")(connection, ops)
        inside.set()
        await never.wait()
        return answers

    kind = kind_of("emit", apply)
    batcher = Batcher(written_pool, [kind])
    work = asyncio.ensure_future(batcher.run())
    taken = asyncio.ensure_future(batcher.submit(kind, [Write(1)]))
    await inside.wait()
    queued = asyncio.ensure_future(batcher.submit(kind, [Write(2)]))
    await asyncio.sleep(0)
    work.cancel()
    with pytest.raises(OutcomeUnknown):
        await taken
    with pytest.raises(Stopped):
        await queued
    with pytest.raises(asyncio.CancelledError):
        await work
    assert rows(tables) == []


async def test_a_caller_that_has_gone_is_not_served(written_pool: Pool, tables: str) -> None:
    batcher = Batcher(written_pool, [EMIT])
    gone = asyncio.ensure_future(batcher.submit(EMIT, [Write(1)]))
    stays = asyncio.ensure_future(batcher.submit(EMIT, [Write(2)]))
    await asyncio.sleep(0)
    gone.cancel()
    async with running(batcher):
        assert await stays == [2]
    assert rows(tables) == [("emit", 2, 0)]


async def test_after_commit_hears_what_was_committed_before_the_callers_do(written_pool: Pool, tables: str) -> None:
    heard: list[tuple[int, object]] = []

    def after_commit(ops: Sequence[Write], results: Sequence[int]) -> None:
        heard.extend((op.key, result) for op, result in zip(ops, results, strict=True))
        assert rows(tables, "select count(*) from written") == [(2,)]

    kind = Kind("emit", insert("emit"), cost=lambda op: op.cost, key=lambda op: op.key, after_commit=after_commit)
    async with running(Batcher(written_pool, [kind])) as batcher:
        await batcher.submit(kind, [Write(1), Write(2, -1), Write(3)])
        assert heard == [(1, 1), (3, 3)]


async def test_a_kind_that_answers_too_little_is_a_fault_of_its_own(written_pool: Pool, tables: str) -> None:
    async def apply(connection: Connection, ops: Sequence[Write]) -> Sequence[int]:
        return (await insert("emit")(connection, ops))[1:]

    kind = kind_of("emit", apply)
    async with running(Batcher(written_pool, [kind])) as batcher:
        answers = await batcher.submit(kind, [Write(1)])
    assert isinstance(answers[0], Quarantined)
    assert rows(tables) == []
