"""What moves finished tasks, and what finds moved ones, reads by indexes: 10^5 that are to go and 10^5 that went."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from dispatcher.db.pool import Pool, transaction
from dispatcher.db.statements import Statements
from tests.dispatcher.builders import CHAIN
from tests.dispatcher.in_process import InProcess, in_process_dispatcher
from tests.dispatcher.plans import plan_of

pytestmark = pytest.mark.slow

# Four days that are kept, and what has ended since; besides, a thousand tasks of each open state.
FILL = """
select add_finished_day(current_date - n) from generate_series(1, 4) n;

insert into finished_task (
    task_id, job_version_id, event_id, origin, state, scope_kind, scope_first, scope_last, revision, attempt,
    failed_attempts, lost_leases, accepted_events, run_emitted, nondeterministic, reason, created_at, finished_at
)
select uuidv7(interval '-5 days' + n * interval '3 s'), j.job_version_id, uuidv7(), 'live', 'succeeded', 1,
    int8send(n), int8send(n), 0, 1, 0, 0, 1, false, false, '', now(),
    current_date - interval '4 days' + n * interval '3 s'
from job_version j, generate_series(1, 100000) n
where j.job = 'copies';

insert into finished_attempt (
    task_id, attempt, worker_id, claim_request_id, lease_token_digest, started_at, ended_at, outcome, task_state,
    message, traceback, finished_at
)
select task_id, 1, 'w', gen_random_uuid(), 'x', now(), now(), 'succeeded', 'succeeded', '', '', finished_at
from finished_task;

insert into task (
    task_id, job_version_id, event_id, origin, scope_kind, scope_first, scope_last, state, attempt, retry_at, reason,
    finished_at
)
select uuidv7(), j.job_version_id, uuidv7(), 'live', 1, int8send(n), int8send(n), s.state::task_state, 1,
    case when s.state = 'backoff' then now() end, 'why',
    case when s.state in ('succeeded', 'dead') then now() - interval '1 h' + n * interval '1 ms' end
from job_version j, generate_series(1, 103000) n
cross join lateral (
    select case when n <= 1000 then 'queued' when n <= 2000 then 'backoff' when n <= 3000 then 'dead'
        else 'succeeded' end
) s (state)
where j.job = 'copies';

insert into attempt (task_id, attempt, worker_id, claim_request_id, lease_token_digest, started_at, outcome, task_state)
select task_id, 1, 'w', gen_random_uuid(), 'x', now(), 'succeeded', 'succeeded' from task where state = 'succeeded';

analyze;
"""


@pytest_asyncio.fixture
async def filled(pool: Pool, tmp_path: Path) -> AsyncIterator[InProcess]:
    async with in_process_dispatcher(pool, tmp_path) as dispatcher:
        await dispatcher.deploy(CHAIN)
        async with transaction(pool) as connection:
            await connection.execute("set local statement_timeout = '120s'")
            for statement in FILL.split(";\n"):
                await connection.execute(statement)
        yield dispatcher


async def _check(dispatcher: InProcess, indexes: set[str], statement: str, **parameters: Any) -> None:
    """`indexes` are named without what a partition's has after the table's name."""
    nodes = await plan_of(dispatcher, statement, **parameters)
    scanned = {node["Relation Name"] for node in nodes if node["Node Type"] == "Seq Scan"}
    used = {node["Index Name"] for node in nodes if "Index Name" in node}
    big = {name for name in scanned if name.startswith(("task", "attempt", "finished_task", "finished_attempt"))}
    assert not big, big
    assert all(any(name.startswith(index) for name in used) for index in indexes), used


async def test_moving_reads_by_indexes(filled: InProcess) -> None:
    finished = Statements.load("dispatcher.tasks", "finished.sql")
    ended = await filled.rows("select task_id::text, finished_at from task where state = 'succeeded' limit 800")
    picked = {"task_ids": [task_id for task_id, _ in ended]}
    for after in ("-infinity", ended[0][1]):
        await _check(filled, {"task_finished"}, finished.pick_finished, age="60 s", after=after, limit=800)
    times = [finished_at for _, finished_at in ended]
    await _check(filled, {"attempt_pkey"}, finished.move_attempts, **picked, finished_at=times, limit=1600)
    await _check(filled, {"task_pkey", "attempt_pkey"}, finished.move_tasks, **picked)
    await _check(filled, {"task_of_source", "attempt_pkey"}, finished.trim_attempts, days=30, limit=1600)


async def test_a_pick_reads_no_more_than_it_takes(filled: InProcess) -> None:
    finished = Statements.load("dispatcher.tasks", "finished.sql")
    picking = {"age": "60 s", "after": "-infinity", "limit": 800}
    nodes = await plan_of(filled, finished.pick_finished, analyze=True, **picking)
    read = [node["Actual Rows"] * node["Actual Loops"] for node in nodes if node.get("Index Name") == "task_finished"]
    assert sum(read) <= 2 * 800


async def test_moved_tasks_are_found_by_indexes(filled: InProcess) -> None:
    finished = Statements.load("dispatcher.tasks", "finished.sql")
    listing = Statements.load("dispatcher.tasks", "listing.sql")
    wakeups, events = Statements.load("dispatcher.wakeups"), Statements.load("dispatcher.events")
    some = [task_id for (task_id,) in await filled.rows("select task_id::text from finished_task limit 50")]
    await _check(filled, {"finished_task_"}, finished.finished_tasks, task_ids=some)
    await _check(filled, {"finished_attempt_"}, finished.finished_attempts, task_ids=some, attempts=[1] * 50)
    await _check(filled, {"task_pkey", "finished_task_"}, listing.get_tasks, task_ids=some)
    await _check(filled, {"attempt_pkey", "finished_attempt_"}, listing.attempts_of, task_id=some[0], limit=100)
    await _check(filled, {"task_pkey", "finished_task_"}, events.events_of_task, task_id=some[0], limit=1000)
    await _check(filled, {"task_pkey", "finished_task_"}, wakeups.hold_facts, task_id=some[0])
    here = {"dataset_id": "copies", "first": b"x", "last": b"x"}
    await _check(filled, {"task_cause", "finished_task_"}, wakeups.producing_task, **here)


@pytest.mark.parametrize("of_finished", [True, False])
async def test_pages_of_tasks_merge_the_days_by_their_keys(filled: InProcess, of_finished: bool) -> None:
    """And open states are looked for in the hot table alone."""
    listing = Statements.load("dispatcher.tasks", "listing.sql")
    page = {"dag": "chain", "job": None, "first": None, "last": None, "limit": 101, "finished": of_finished}
    states = None if of_finished else ["queued"]
    await _check(filled, {"task_"}, listing.find_tasks, before=None, states=states, **page)
    nodes = await plan_of(filled, listing.find_tasks, analyze=True, before=None, states=states, **page)
    rows = sum(
        node["Actual Rows"] * node["Actual Loops"] for node in nodes if "finished_task" in str(node.get("Index Name"))
    )
    assert (rows > 0) is of_finished
    assert rows <= 101 * 6
