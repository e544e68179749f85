"""What goes on beside a switch of a pipeline: tasks that read, builds that are given up, dry runs, waits."""

import asyncio

import pytest

from dispatcher.datasets import store as datasets
from dispatcher.db.pool import transaction
from dispatcher.db.rows import Connection
from dispatcher.deploy import rerun_rows
from dispatcher.deploy.rerun_rows import Bounds
from kernel.ids import new_id
from tests.dispatcher.builders import Source, Worker, int64
from tests.dispatcher.changing import CHANGED, PIPELINE, Fleet, deploy, roll_back, served, state, watch
from tests.dispatcher.in_process import InProcess
from tests.dispatcher.test_plan_dag import plan
from traceapi.control.v1 import dag_service_pb2 as pb
from traceapi.control.v1 import source_service_pb2 as sources
from traceapi.types.v1.scope_pb2 import CursorRange

READER = """\
dag: reader
jobs:
  mine:
    operator: sql
    config: {sql: select number from copies}
    inputs: {copies: {}}
    outputs: {mine: {schema: {number: int64}}}
"""
FIRST_OF_READER = """
select t.task_id::text from task t join job_version j using (job_version_id)
where j.job = 'mine' and t.state = 'released' order by t.scope_first limit 1
"""
HELD = "select count(*) from pg_locks where locktype = 'advisory' and mode = 'ExclusiveLock' and granted"


async def _changed(dispatcher: InProcess, fleet: Fleet, *datasets_: str) -> None:
    """Another version is active."""
    before = await served(dispatcher)
    await deploy(dispatcher, CHANGED)
    await fleet.catch_up(*datasets_)
    await fleet.catch_up(*datasets_)
    assert await served(dispatcher) != before


async def test_a_task_of_a_reader_goes_on_reading_the_version_that_its_first_claim_fixed(
    dispatcher: InProcess, source: Source, fleet: Fleet
) -> None:
    await source.publish([1, 2, 3, 4, 5])
    await fleet.work()
    await dispatcher.deploy(READER)
    while await dispatcher.replay():
        pass
    await dispatcher.release()
    task_id = str(await dispatcher.value(FIRST_OF_READER))
    await Worker(dispatcher).claim_one(task_id)

    async def reads() -> tuple[str, int | None]:
        async with transaction(dispatcher.pool) as connection:
            found = (await datasets.task_reads(connection, [(task_id, "copies")]))[task_id, "copies"]
        return found.dataset_version_id, found.number

    fixed = await reads()
    assert fixed[0] == (await served(dispatcher))["copies"]
    await _changed(dispatcher, fleet, "copies", "echo")
    assert fixed[0] != (await served(dispatcher))["copies"]
    assert await reads() == fixed


async def test_a_removed_dag_is_planned_and_deployed_again(dispatcher: InProcess, source: Source) -> None:
    await dispatcher.dags.RemoveDag(pb.RemoveDagRequest(dag="chain"))
    planned = await plan(dispatcher, PIPELINE)
    answer = await dispatcher.dags.DeployDag(pb.DeployDagRequest(plan_id=planned.plan_id, request_id=new_id()))
    assert state(answer.deployment) == "active"


async def test_a_rollback_to_what_is_active_gives_up_what_is_built(
    dispatcher: InProcess, source: Source, fleet: Fleet
) -> None:
    await source.publish([1])
    await fleet.work()
    building = await deploy(dispatcher, CHANGED, hold=True)
    await roll_back(dispatcher, to=1)
    assert state((await watch(dispatcher, building)).deployment) == "aborted"


async def test_a_version_that_is_not_active_any_more_is_behind_by_nothing(
    dispatcher: InProcess, source: Source, fleet: Fleet
) -> None:
    await source.publish([1])
    await fleet.work()
    await _changed(dispatcher, fleet)
    await source.publish([2, 3])
    await fleet.work()
    call = new_id()
    assert (await roll_back(dispatcher, request_id=call)).lag_event_count == 2
    await roll_back(dispatcher)  # taken back again before it caught up
    assert (await roll_back(dispatcher, request_id=call)).lag_event_count == 0


async def test_a_dry_run_of_a_backfill_holds_up_no_switch(
    dispatcher: InProcess, source: Source, fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    await source.publish([1, 2])
    await fleet.work()
    await _changed(dispatcher, fleet)
    reached, go_on = asyncio.Event(), asyncio.Event()
    count_scopes = rerun_rows.count_scopes

    async def slow(connection: Connection, bounds: Bounds) -> int:
        reached.set()
        await go_on.wait()
        return await count_scopes(connection, bounds)

    monkeypatch.setattr(rerun_rows, "count_scopes", slow)
    every = CursorRange(first=int64(1), last=int64(2))
    call = sources.BackfillJobRequest(dag="chain", job="copies", range=every, request_id=new_id(), dry_run=True)
    dry_run = asyncio.ensure_future(_answer(dispatcher, call))
    await reached.wait()
    await roll_back(dispatcher)
    go_on.set()
    assert [job.job for job in (await dry_run).jobs] == ["copies"]


async def _answer(dispatcher: InProcess, call: sources.BackfillJobRequest) -> sources.BackfillJobResponse:
    return await dispatcher.sources.BackfillJob(call)


async def test_a_switch_that_waits_for_the_row_of_its_dag_holds_up_no_acceptance(
    dispatcher: InProcess, source: Source, fleet: Fleet
) -> None:
    await source.publish([1])
    await fleet.work()
    await _changed(dispatcher, fleet)
    async with transaction(dispatcher.pool) as connection:
        await connection.execute("select dag from dag where dag = 'chain' for no key update")
        back = asyncio.create_task(roll_back(dispatcher))
        await dispatcher.until_waiting_or_done(back)
        held = await dispatcher.value(HELD)
    await back
    assert held == 0
