"""Whether a build is done is found without reading all that its jobs have to do: with 10^5 tasks of each kind."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from dispatcher.db.pool import Pool, transaction
from dispatcher.db.statements import Statements
from dispatcher.deploy import barrier, progress
from dispatcher.deploy.progress import StagedJobRow
from tests.dispatcher.builders import start_source
from tests.dispatcher.changing import CHANGED, PIPELINE, Fleet, deploy
from tests.dispatcher.in_process import InProcess, in_process_dispatcher
from tests.dispatcher.plans import plan_of
from traceapi.control.v1 import dag_service_pb2 as pb

ROWS = 100_000
MOST = 1_000
# Of what the staged version alone has: `copies` waits, `echo` is in backoff. All came after the staging.
FILL = """
insert into task (task_id, job_version_id, event_id, origin, scope_kind, scope_first, scope_last, state, retry_at)
select uuidv7(), r.job_version_id, uuidv7(), 'live', 1, int8send(n), int8send(n),
    (case j.job when 'copies' then 'queued' else 'backoff' end)::task_state,
    case when j.job = 'echo' then clock_timestamp() + interval '1 h' end
from job_version_run r
join job_version j using (job_version_id)
cross join generate_series(1, %s) n
where r.run_state = 'staged' and j.job in ('copies', 'echo')
"""


@pytest_asyncio.fixture
async def dispatcher(pool: Pool, tmp_path: Path) -> AsyncIterator[InProcess]:
    """A version is staged for the second time, and all that it was owed is done; nobody has noted yet that it is."""
    async with in_process_dispatcher(pool, tmp_path) as running:
        await deploy(running, PIPELINE)
        await (await start_source(running)).publish([1])
        await Fleet(running).catch_up()
        given_up = await deploy(running, CHANGED, hold=True)
        await running.dags.AbortDeployment(pb.AbortDeploymentRequest(deployment_id=given_up.deployment_id))
        await deploy(running, CHANGED, hold=True)
        await Fleet(running).catch_up()
        await running.run("update dag_version set barrier_passed_at = null")
        yield running


async def _fill(dispatcher: InProcess, rows: int) -> None:
    async with transaction(dispatcher.pool) as connection:
        await connection.execute("set local statement_timeout = '120s'")
        await connection.execute(FILL, [rows])
        await connection.execute("analyze task")


async def _staged(dispatcher: InProcess, *, locked: bool = False) -> dict[str, StagedJobRow]:
    staged = await dispatcher.value("select staged_version_id::text from dag")
    async with transaction(dispatcher.pool) as connection:
        return {row.job: row for row in await progress.staged_jobs(connection, staged, locked=locked)}


@pytest.mark.slow
async def test_of_each_kind_of_tasks_so_many_are_read(dispatcher: InProcess) -> None:
    await _fill(dispatcher, ROWS)
    staged = await dispatcher.value("select staged_version_id::text from dag")
    statement = Statements.load("dispatcher.deploy", "progress.sql").staged_jobs
    nodes = await plan_of(dispatcher, statement, analyze=True, dag_version_id=staged, most=MOST)
    scans = [node for node in nodes if node.get("Relation Name") == "task"]
    assert scans
    read = [(node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"] for node in scans]
    assert max(read) <= 2 * 2 * (MOST + 1), "two jobs, each of two origins"
    assert {node["Node Type"] for node in scans} <= {"Index Scan", "Index Only Scan"}
    assert {node["Index Name"] for node in scans} == {"task_queued", "task_open", "task_dead"}


@pytest.mark.slow
async def test_once_all_of_them_were_read_the_locks_of_a_cutover_wait_for_a_few(dispatcher: InProcess) -> None:
    await _fill(dispatcher, ROWS)
    staged = await dispatcher.value("select staged_version_id::text from dag")
    await barrier.note_passed(dispatcher.pool, staged)
    statement = Statements.load("dispatcher.deploy", "progress.sql").staged_jobs
    nodes = await plan_of(dispatcher, statement, analyze=True, dag_version_id=staged, most=MOST)
    scans = [node for node in nodes if node.get("Relation Name") == "task"]
    read = [(node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"] for node in scans]
    assert max(read) <= 2, "one of each job"
    assert not any(row.unfinished for row in (await _staged(dispatcher)).values())


@pytest.mark.slow
async def test_until_then_no_more_are_read_under_the_locks(dispatcher: InProcess) -> None:
    """What is in work counts as from before, since nobody looks."""
    await _fill(dispatcher, ROWS)
    staged = await dispatcher.value("select staged_version_id::text from dag")
    statement = Statements.load("dispatcher.deploy", "progress.sql").staged_jobs
    nodes = await plan_of(dispatcher, statement, analyze=True, dag_version_id=staged, most=0)
    scans = [node for node in nodes if node.get("Relation Name") == "task"]
    read = [(node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"] for node in scans]
    assert max(read) <= 2, "one of each job"
    assert all(row.unfinished for row in (await _staged(dispatcher, locked=True)).values())


async def test_a_job_with_more_to_do_than_is_looked_at_is_not_done_until_all_was_read(
    dispatcher: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though all of it came later: nobody can tell of what was not looked at. With fewer it is told apart."""
    await _fill(dispatcher, 50)
    monkeypatch.setattr(progress, "_MOST_WAITING", 50)
    assert {job: (row.unfinished, row.open) for job, row in (await _staged(dispatcher)).items()} == {
        "copies": (True, True),
        "echo": (True, True),
    }
    level = {"copies": (False, True), "echo": (False, True)}
    monkeypatch.setattr(progress, "_MOST_WAITING", 51)
    assert {job: (row.unfinished, row.open) for job, row in (await _staged(dispatcher)).items()} == level
    monkeypatch.setattr(progress, "_MOST_WAITING", 50)
    await barrier.note_passed(dispatcher.pool, await dispatcher.value("select staged_version_id::text from dag"))
    assert {job: (row.unfinished, row.open) for job, row in (await _staged(dispatcher)).items()} == level


async def test_what_was_caused_before_the_staging_is_found_among_what_came_later(dispatcher: InProcess) -> None:
    await _fill(dispatcher, 50)
    await dispatcher.run(
        "update task set created_at = created_at - interval '1 day' where state in ('queued', 'backoff')"
        " and scope_first = int8send(40)"
    )
    assert {job: row.unfinished for job, row in (await _staged(dispatcher)).items()} == {"copies": True, "echo": True}


async def test_a_dead_task_is_found_among_what_waits_to_be_tried_again(dispatcher: InProcess) -> None:
    await _fill(dispatcher, 50)
    await dispatcher.run(
        "update task set state = 'dead', retry_at = null, finished_at = clock_timestamp(), reason = 'broke'"
        " where state = 'backoff' and scope_first = int8send(40)"
    )
    found = await _staged(dispatcher)
    assert found["echo"].dead_task_id == await dispatcher.value("select task_id::text from task where state = 'dead'")
    assert found["copies"].dead_task_id is None
