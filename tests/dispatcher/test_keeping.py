"""Finished tasks leave the hot tables: whole, once, in bounded steps, and by days they leave altogether."""

import asyncio
import contextlib
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest

from dispatcher.db.pool import transaction
from dispatcher.db.rows import Connection
from dispatcher.tasks import finished, keeping
from dispatcher.tasks.keeping import ATTEMPTS, TASKS, Keeper, Keeping, move_finished
from tests.dispatcher.builders import CHAIN, Source, Worker, success, verdict
from tests.dispatcher.in_process import DEADLINE, InProcess

ROOT = Path(__file__).resolve().parents[2]
NOW = timedelta()
KEPT = "select count(*) from finished_task"
LIVE = "select count(*) from task where state in ('succeeded', 'canceled', 'skipped')"
COUNTED = "select coalesce(sum(tasks), 0)::bigint from finished_count"
OF_LEASES = {
    "claim_request_id",
    "lease_token_digest",
    "lease_until",
    "stream_epoch",
    "worker_id",
    "released_at",
    "retry_at",
    "progress",
}

# So many finished tasks of the job `copies`, each with an attempt, that ended so long ago.
FINISHED = """
with made as (
    insert into task (
        task_id, job_version_id, event_id, origin, scope_kind, scope_first, scope_last, state, attempt, finished_at
    )
    select uuidv7(), j.job_version_id, uuidv7(), 'live', 1, int8send(n), int8send(n), 'succeeded', 1,
        clock_timestamp() - %s::interval + n * interval '1 microsecond'
    from job_version j, generate_series(1, %s::int) n
    where j.job = 'copies'
    returning task_id
)
insert into attempt (task_id, attempt, worker_id, claim_request_id, lease_token_digest, started_at, outcome, task_state)
select task_id, 1, 'w', gen_random_uuid(), 'x', clock_timestamp(), 'succeeded', 'succeeded' from made
"""

# Of the task that ended first.
MANY_ATTEMPTS = """
insert into attempt (task_id, attempt, worker_id, claim_request_id, lease_token_digest, started_at, outcome, task_state)
select t.task_id, n, 'w', gen_random_uuid(), 'x', clock_timestamp(), 'returned', 'queued'
from (select task_id from task order by finished_at limit 1) t, generate_series(2, 4000) n
"""
BY_PARTITION = """
select count(*),
    bool_and(tableoid::regclass::text = 'finished_task_' || to_char(finished_at at time zone 'UTC', 'YYYYMMDD'))
from finished_task
group by tableoid
order by 1
"""


@pytest.fixture
async def chain(dispatcher: InProcess) -> InProcess:
    await dispatcher.deploy(CHAIN)
    return dispatcher


async def _fill(dispatcher: InProcess, tasks: int, *, ago: str = "1 h") -> None:
    await dispatcher.run(FINISHED, ago, tasks)


async def _at_once(dispatcher: InProcess) -> tuple[int, int, int]:
    """Finished tasks in the hot table, moved ones, and what is counted of these."""
    return tuple([await dispatcher.value(query) for query in (LIVE, KEPT, COUNTED)])


@contextlib.asynccontextmanager
async def _moving(dispatcher: InProcess) -> AsyncIterator[Connection]:
    """A transaction that has moved a batch and is open."""
    async with transaction(dispatcher.pool) as connection:
        assert await finished.keep_alone(connection)
        await move_finished(connection, NOW)
        yield connection


async def test_what_has_just_ended_stays_for_a_while(chain: InProcess) -> None:
    await _fill(chain, 2, ago="50 s")
    await _fill(chain, 3, ago="70 s")
    await Keeper(chain.pool, Keeping(timedelta(seconds=60), 0)).run_once()
    assert await _at_once(chain) == (2, 3, 3)


async def test_a_transaction_moves_a_bounded_number_of_rows(chain: InProcess) -> None:
    """Also of a task with more attempts than one can hold: they go ahead of it."""
    await _fill(chain, TASKS + 10)
    await chain.run(MANY_ATTEMPTS)
    attempts, rounds = await chain.value("select count(*) from attempt"), 0
    while True:
        async with transaction(chain.pool) as connection:
            moved = await move_finished(connection, NOW)
        if moved.first is None:
            break
        rounds += 1
        assert 2 * (moved.tasks + moved.attempts) + 1 <= 5_000
        assert await chain.value("select count(*) from any_attempt") == attempts
    assert rounds > attempts // ATTEMPTS
    assert await chain.value("select count(*) from finished_attempt") == attempts
    assert await _at_once(chain) == (0, TASKS + 10, TASKS + 10)


async def test_tasks_of_each_day_lie_in_its_partition(chain: InProcess) -> None:
    await _fill(chain, 2, ago="3 days")
    await _fill(chain, 3)
    await chain.keep()
    assert await chain.rows(BY_PARTITION) == [(2, True), (3, True)]


async def test_every_column_of_a_task_is_kept_or_is_a_leases(chain: InProcess) -> None:
    """A column that is added to `task` says where it goes."""
    columns = "select column_name from information_schema.columns where table_name = %s"
    tables = ("task", "finished_task", "attempt", "finished_attempt")
    has = {table: {name for (name,) in await chain.rows(columns, table)} for table in tables}
    assert has["task"] - has["finished_task"] == OF_LEASES
    assert has["finished_task"] <= has["task"]
    assert has["finished_attempt"] - has["attempt"] == {"finished_at"}
    assert has["attempt"] <= has["finished_attempt"]


@pytest.mark.parametrize("point", ["keep.attempts", "keep.written"])
async def test_a_dispatcher_that_dies_in_the_middle_has_moved_nothing(
    chain: InProcess, database: str, point: str
) -> None:
    await _fill(chain, 5)
    program = (
        "import asyncio, sys\n"
        "from datetime import timedelta\n"
        "from dispatcher.db.pool import PoolConfig, open_pool\n"
        "from dispatcher.tasks.keeping import Keeper, Keeping\n"
        "from kernel.crash import arm\n"
        "async def main():\n"
        "    async with open_pool(PoolConfig(sys.argv[1])) as pool:\n"
        "        await Keeper(pool, Keeping(timedelta(), 0)).run_once()\n"
        "arm(sys.argv[2])\n"
        "asyncio.run(main())\n"
    )
    command = [sys.executable, "-c", program, database, f"{point}:1"]
    ended = await asyncio.to_thread(subprocess.run, command, cwd=ROOT, check=False)
    assert ended.returncode == -signal.SIGKILL
    assert await _at_once(chain) == (5, 0, 0)
    async with asyncio.timeout(DEADLINE):  # the server may not have noticed yet, and hold what the dead one had locked
        while (moved := await _at_once(chain)) != (0, 5, 5):
            assert moved == (5, 0, 0)
            await chain.keep()


@pytest.mark.races
async def test_of_two_replicas_one_moves(chain: InProcess) -> None:
    await _fill(chain, TASKS + 5)
    async with _moving(chain):
        assert await Keeper(chain.pool, Keeping(NOW, 0)).run_once() == 0
    assert await _at_once(chain) == (5, TASKS, TASKS)


@pytest.mark.races
async def test_two_that_move_at_once_take_different_tasks(chain: InProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the rows' locks alone: nothing depends on there being one."""

    async def always(connection: Connection) -> bool:
        return True

    await _fill(chain, TASKS + 5)
    async with _moving(chain):
        monkeypatch.setattr(finished, "keep_alone", always)
        async with transaction(chain.pool) as connection:
            assert len(await finished.pick_finished(connection, NOW, None, TASKS)) == 5
    await chain.keep()
    assert await _at_once(chain) == (0, TASKS + 5, TASKS + 5)


@pytest.mark.races
async def test_a_task_that_somebody_has_locked_is_left_for_later(chain: InProcess) -> None:
    await _fill(chain, 3)
    async with transaction(chain.pool) as connection:
        await connection.execute("select from task where state = 'succeeded' order by task_id limit 1 for update")
        assert await chain.keep() == 2
    assert await chain.keep() == 1


@pytest.mark.races
@pytest.mark.parametrize("call", ["complete", "claim"])
async def test_a_call_that_waits_for_a_task_which_is_being_moved_finds_it(
    dispatcher: InProcess, source: Source, call: str
) -> None:
    await source.publish([1])
    worker = Worker(dispatcher)
    task_id = await dispatcher.task_of("chain", "copies", 1)
    await dispatcher.release()
    lease = worker.lease(await worker.claim_one(task_id))
    assert await worker.complete(success(lease)) == ["succeeded"]

    async def late() -> str:
        if call == "complete":
            return (await worker.complete(success(lease)))[0]
        return verdict((await Worker(dispatcher).claim([task_id])).results[0])

    async with _moving(dispatcher):
        calling = asyncio.create_task(late())
        await dispatcher.until_waiting_or_done(calling)
        assert not calling.done()
    assert await calling == {"complete": "succeeded", "claim": "TASK_FINISHED"}[call]


async def test_days_are_dropped_once_their_last_task_is_old_enough(chain: InProcess) -> None:
    for ago in ("9 days", "8 days", "6 days", "1 h"):
        await _fill(chain, 1, ago=ago)
    await chain.keep()
    await Keeper(chain.pool, Keeping(NOW, 0)).tend_days()
    assert await chain.value(KEPT) == 4
    await Keeper(chain.pool, Keeping(NOW, 7)).tend_days()
    assert await chain.value(KEPT) == 2
    assert await chain.value("select count(*) from finished_attempt") == 2
    ahead = "select count(*) from finished_day where day in (current_date, current_date + 1)"
    assert await chain.value(ahead) == 2
    assert await chain.value(COUNTED) == 4


@pytest.mark.races
async def test_a_drop_gives_way_to_those_who_read_history(chain: InProcess) -> None:
    """It waits for its lock only for a moment, in which others wait behind it, and comes again."""
    await _fill(chain, 1, ago="9 days")
    await chain.keep()
    keeper = Keeper(chain.pool, Keeping(NOW, 7, drop_wait=timedelta(milliseconds=1)))
    async with transaction(chain.pool) as connection:
        await connection.execute(KEPT)
        await keeper.tend_days()
        assert await chain.value(KEPT) == 1
    await keeper.tend_days()
    assert await chain.value(KEPT) == 0


@pytest.mark.races
async def test_a_partition_is_made_beside_those_who_read_and_move(chain: InProcess) -> None:
    await _fill(chain, 1)
    await chain.keep()
    await _fill(chain, 1)
    async with _moving(chain) as connection:
        await connection.execute(KEPT)
        async with transaction(chain.pool) as other:
            await finished.limit_lock_wait(other, timedelta(milliseconds=1))
            await other.execute("select add_finished_day(current_date + 5)")


async def test_the_duty_goes_on_until_nothing_is_left(chain: InProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeping, "_LONGEST_REST_SECONDS", 0.0)
    await _fill(chain, 2 * TASKS + 1)
    keeper = Keeper(chain.pool, Keeping(NOW, 0))
    rounds = 0
    while await keeper.run_once():
        rounds += 1
    assert rounds == 3
    assert await _at_once(chain) == (0, 2 * TASKS + 1, 2 * TASKS + 1)


async def test_only_what_is_final_can_be_kept(chain: InProcess) -> None:
    await _fill(chain, 1)
    await chain.keep()
    with pytest.raises(psycopg.errors.CheckViolation):
        await chain.run("update finished_task set state = 'dead'")
