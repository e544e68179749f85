"""Many callers, one commit; one bad operation, one bad answer; and never an order that a task did not ask for."""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
import pytest_asyncio
from psycopg.conninfo import make_conninfo

from dispatcher.db.batcher import Batcher, BatcherConfig, Committed, Connection, Held, Kind, LoopClock, Quarantined
from dispatcher.db.errors import OutcomeUnknown, Overloaded, Stopped, TransactionFailed
from dispatcher.db.pool import Pool, PoolConfig, open_pool
from kernel.embedded_postgres import EmbeddedPostgres

# Values with a meaning: below 0 fails at once, 13 kills its backend in COMMIT, 404 fails in COMMIT.
_TABLES = """
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


def _insert(kind: str) -> Callable[[Connection, Sequence[Write]], Awaitable[Sequence[int]]]:
    async def apply(connection: Connection, ops: Sequence[Write]) -> Sequence[int]:
        cursor = await connection.execute(
            "insert into written (kind, key, value) select %s, key, value"
            " from unnest(%s::int[], %s::int[]) with ordinality as op (key, value, n) order by n returning key",
            (kind, [op.key for op in ops], [op.value for op in ops]),
        )
        return [row[0] for row in await cursor.fetchall()]

    return apply


def _kind(name: str, apply: Callable[[Connection, Sequence[Write]], Awaitable[Sequence[int]]]) -> Kind[Write, int]:
    return Kind(name, apply, cost=lambda op: op.cost, key=lambda op: op.key)


EMIT = _kind("emit", _insert("emit"))
COMPLETE = _kind("complete", _insert("complete"))


class GatedClock(LoopClock):
    """Lingers until the test opens the gate."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.lingers = asyncio.Event()

    async def sleep(self, seconds: float) -> None:
        self.lingers.set()
        await self.gate.wait()


@pytest.fixture
def tables(empty_database: str) -> str:
    with psycopg.connect(empty_database) as connection:
        connection.execute(_TABLES)
    return empty_database


@pytest_asyncio.fixture
async def written_pool(tables: str) -> AsyncIterator[Pool]:
    options = "-c deadlock_timeout=10ms"
    async with open_pool(PoolConfig(make_conninfo(tables, options=options), lock_timeout=2.0)) as pool:
        yield pool


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


async def test_what_belongs_together_is_in_one_transaction_though_the_call_needs_several(
    written_pool: Pool, tables: str
) -> None:
    config = BatcherConfig(max_cost=100)
    async with running(Batcher(written_pool, [EMIT, COMPLETE], config)) as batcher:
        ops = [(kind, Write(key, cost=15)) for key in range(40) for kind in (EMIT, COMPLETE)]
        assert await batcher.submit_all(ops) == [op.key for _, op in ops]
    assert rows(tables, "select count(distinct tx) from written group by key having count(distinct tx) > 1") == []
    assert rows(tables, "select count(distinct tx) > 10 from written") == [(True,)]


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

    kind = Kind("emit", _insert("emit"), cost=lambda op: op.cost, key=lambda op: op.key, finish=finish)
    async with running(Batcher(written_pool, [kind])) as batcher:
        answers = await batcher.submit(kind, [Write(key) for key in range(100)])
    assert keys_of(answers) == [key for key in range(100) if key != 30]
    assert rows(tables, "select count(*) from written") == [(99,)]


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

    kind = _kind("update", update_two)
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
        await _insert("update")(connection, ops)
        await connection.execute("update parent set value = value where value = 1")
        return [op.key for op in ops]

    kind = _kind("update", update)
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

    kind = Kind("emit", _insert("emit"), cost=lambda op: op.cost, key=lambda op: op.key, finish=finish)
    async with running(Batcher(written_pool, [kind])) as batcher:
        assert await batcher.submit(kind, [Write(1)]) == [1]
    assert rows(tables) == [("emit", 1, 0)]


async def test_after_sigkill_of_the_server_callers_repeat_and_all_is_there(tmp_path: Path) -> None:
    async def insert_once(connection: Connection, ops: Sequence[Write]) -> Sequence[int]:
        keys = sorted(op.key for op in ops)
        await connection.execute("insert into once select unnest(%s::int[]) on conflict do nothing", (keys,))
        return [op.key for op in ops]

    kind = _kind("once", insert_once)
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
        answers = await _insert("emit")(connection, ops)
        inside.set()
        await never.wait()
        return answers

    kind = _kind("emit", apply)
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

    kind = Kind("emit", _insert("emit"), cost=lambda op: op.cost, key=lambda op: op.key, after_commit=after_commit)
    async with running(Batcher(written_pool, [kind])) as batcher:
        await batcher.submit(kind, [Write(1), Write(2, -1), Write(3)])
        assert heard == [(1, 1), (3, 3)]


async def test_a_kind_that_answers_too_little_is_a_fault_of_its_own(written_pool: Pool, tables: str) -> None:
    async def apply(connection: Connection, ops: Sequence[Write]) -> Sequence[int]:
        return (await _insert("emit")(connection, ops))[1:]

    kind = _kind("emit", apply)
    async with running(Batcher(written_pool, [kind])) as batcher:
        answers = await batcher.submit(kind, [Write(1)])
    assert isinstance(answers[0], Quarantined)
    assert rows(tables) == []
