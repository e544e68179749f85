"""What judges and removes versions reads by indexes: of 10^5 tasks, as many events and files half are of what goes."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from dispatcher.collecting import removal
from dispatcher.collecting.reach import SETTLING
from dispatcher.collecting.removal import PAGE_ROWS
from dispatcher.db.pool import Pool, transaction
from dispatcher.db.statements import Statements
from tests.dispatcher.builders import CHAIN
from tests.dispatcher.giving_up import GivenUp, replace
from tests.dispatcher.in_process import InProcess, in_process_dispatcher
from tests.dispatcher.plans import plan_of

pytestmark = pytest.mark.slow

BIG = ("task", "attempt", "finished_task", "finished_attempt", "event", "artifact", "publication")
# Half of the tasks were moved, into the days that they ended in.
FILL = """
select add_finished_day(current_date - n) from generate_series(1, 4) n;

insert into publication (publication_id, dataset_version_id, number)
select uuidv7(), h.dataset_version_id, n from dataset_head h, generate_series(1, 30000) n;

insert into artifact (
    artifact_id, dataset_version_id, object_key, producer_task_id, producer_attempt, scope_kind, scope_first,
    scope_last, revision, row_count, size_bytes, sha256, schema_digest, publication_id
)
select uuidv7(), v.dataset_version_id, v.dataset_version_id || '/' || n, uuidv7(), 1, 1, int8send(n), int8send(n), 0,
    1, 1, sha256(int8send(n)), 'x', uuidv7()
from dataset_version v, generate_series(1, 30000) n
where v.dataset_id = 'copies';

insert into event (
    event_id, dataset_version_id, producer_task_id, producer_attempt, scope_kind, scope_first, scope_last, revision,
    payload_digest, publication_id, origin
)
select uuidv7(), v.dataset_version_id, uuidv7(), 1, 1, int8send(n), int8send(n), 0, 'x', uuidv7(), 'live'
from dataset_version v, generate_series(1, 30000) n;

insert into finished_task (
    task_id, job_version_id, event_id, origin, state, scope_kind, scope_first, scope_last, revision, attempt,
    failed_attempts, lost_leases, accepted_events, run_emitted, nondeterministic, reason, created_at, finished_at
)
select uuidv7(), j.job_version_id, uuidv7(), 'live', 'succeeded', 1, int8send(n), int8send(n), 0, 1, 0, 0, 1,
    false, false, '', now(), current_date - interval '4 days' + n * interval '5 s'
from job_version j, generate_series(1, 50000) n
where j.job = 'copies';

insert into finished_attempt (
    task_id, attempt, worker_id, claim_request_id, lease_token_digest, started_at, ended_at, outcome, task_state,
    message, traceback, finished_at
)
select task_id, 1, 'w', gen_random_uuid(), 'x', now(), now(), 'succeeded', 'succeeded', '', '', finished_at
from finished_task;

insert into task (
    task_id, job_version_id, event_id, origin, scope_kind, scope_first, scope_last, state, attempt, finished_at
)
select uuidv7(), j.job_version_id, uuidv7(), 'live', 1, int8send(n), int8send(n),
    (case when n % 2 = 0 then 'queued' else 'succeeded' end)::task_state, 1, case when n % 2 = 1 then now() end
from job_version j, generate_series(1, 50000) n
where j.job = 'copies';

insert into attempt (task_id, attempt, worker_id, claim_request_id, lease_token_digest, started_at, outcome, task_state)
select task_id, 1, 'w', gen_random_uuid(), 'x', now(), 'succeeded', 'succeeded' from task where state = 'succeeded';

analyze;
"""


@pytest_asyncio.fixture
async def dispatcher(pool: Pool, tmp_path: Path) -> AsyncIterator[InProcess]:
    async with in_process_dispatcher(pool, tmp_path) as running:
        yield running


@pytest_asyncio.fixture
async def former(dispatcher: InProcess) -> GivenUp:
    await dispatcher.deploy(CHAIN)
    former = await replace(dispatcher)
    async with transaction(dispatcher.pool) as connection:
        await connection.execute("set local statement_timeout = '120s'")
        for statement in FILL.split(";\n"):
            await connection.execute(statement)
    return former


async def _most_read(dispatcher: InProcess, statement: str, **parameters: Any) -> float:
    """Rows that a node of the plan has read of a large table, at most."""
    nodes = await plan_of(dispatcher, statement, analyze=True, **parameters)
    scans = [
        node for node in nodes if str(node.get("Relation Name", "")).startswith(BIG) and "Scan" in node["Node Type"]
    ]
    return max(
        (node["Actual Loops"] * (node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) for node in scans),
        default=0,
    )


async def test_a_page_reads_hardly_more_than_it_removes(dispatcher: InProcess, former: GivenUp) -> None:
    sql = Statements.load("dispatcher.collecting", "removal.sql")
    of = {"version_id": former.versions["copies"], "limit": PAGE_ROWS // 3}
    for name in (*removal._PAGED, "pick_tasks", "pick_finished", "file_page", "remove_outputs"):
        assert await _most_read(dispatcher, sql[name], **of) <= 2 * PAGE_ROWS, name
    picked = {"task_ids": await _column(dispatcher, sql.pick_tasks, 0, of), "limit": PAGE_ROWS}
    for name in ("remove_attempts", "remove_tasks"):
        assert await _most_read(dispatcher, sql[name], **picked) <= 2 * PAGE_ROWS, name
    moved = {
        "task_ids": await _column(dispatcher, sql.pick_finished, 0, of),
        "finished_at": await _column(dispatcher, sql.pick_finished, 1, of),
        "limit": PAGE_ROWS,
    }
    for name in ("remove_finished_attempts", "remove_finished"):
        assert await _most_read(dispatcher, sql[name], **moved) <= 2 * PAGE_ROWS, name


async def _column(dispatcher: InProcess, statement: str, place: int, parameters: dict[str, Any]) -> list[Any]:
    async with transaction(dispatcher.pool) as connection:
        cursor = await connection.execute(statement, parameters)
        return [row[place] for row in await cursor.fetchall()]


async def test_judging_reads_the_tasks_at_hand_once_and_nothing_of_what_versions_hold(
    dispatcher: InProcess, former: GivenUp
) -> None:
    sql = Statements.load("dispatcher.collecting")
    for name in ("judged", "candidates", "outputs", "lock_versions", "own_readers", "lock_pins"):
        parameters = {
            "version_ids": former.ids,
            "window": [],
            "settling": SETTLING,
            "dag": None,
            "after": None,
            "limit": 100,
        }
        assert await _most_read(dispatcher, sql[name], **parameters) <= (100_010 if name == "judged" else 1_000), name
