"""A dispatcher that dies at a step of a change: everything is as before the step or as after it, and the same call,
made again, or another replica's duty, goes on from there."""

import asyncio
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.dispatcher.builders import Source, int64, start_source
from tests.dispatcher.changing import CHANGED, PIPELINE, Fleet, deploy, missing, run_states, served, state, watch
from tests.dispatcher.in_process import DEADLINE, InProcess
from traceapi.control.v1 import dag_service_pb2 as pb
from traceapi.control.v1.source_service_pb2 import BackfillJobRequest
from traceapi.types.v1.scope_pb2 import CursorRange

ROOT = Path(__file__).parents[2]
PROGRAM = """
import asyncio, sys
from dispatcher.audit.entries import Action
from dispatcher.db.pool import PoolConfig, open_pool
from dispatcher.deploy import cutover, rerun_rows, reruns
from dispatcher.events import replay
from dispatcher.db.pool import transaction
from kernel.crash import arm

async def main(database, step, argument):
    async with open_pool(PoolConfig(database)) as pool:
        if step == "cutover":
            await cutover.cut_over(pool, argument, "a dying dispatcher")
        elif step == "abort":
            await cutover.abort(pool, argument, "a dying dispatcher")
        elif step == "rollback":
            await cutover.roll_back(pool, cutover.Rollback("chain", None, argument, "a dying dispatcher"))
        elif step == "rerun":
            async with transaction(pool) as connection:
                (job,) = await rerun_rows.jobs_called(connection, "copies", "chain")
                bounds = rerun_rows.Bounds(job.job_version_id, b"", bytes([255]) * 8)
                request = reruns.RerunRequest(argument, "", bytes(32), Action.BACKFILL, "a dying dispatcher")
                await reruns.backfill(connection, job, bounds, request)
        else:
            async with transaction(pool) as connection:
                await replay.Replayer().page(connection)

arm(sys.argv[2])
asyncio.run(main(sys.argv[1], sys.argv[2].split(".")[0], sys.argv[3]))
"""
REQUEST = "01a20000-0000-7000-8000-000000000001"


@pytest.fixture
async def source(dispatcher: InProcess) -> Source:
    await dispatcher.deploy(PIPELINE)
    return await start_source(dispatcher)


async def _die(dispatcher: InProcess, database: str, point: str, argument: str) -> None:
    """Makes the step in a process of its own, which dies at the point; returns when the server has noticed."""
    command = [sys.executable, "-c", PROGRAM, database, f"{point}:1", argument]
    ended = await asyncio.to_thread(subprocess.run, command, cwd=ROOT, check=False)
    assert ended.returncode == -signal.SIGKILL
    others = "select count(*) from pg_stat_activity where state = 'idle in transaction' and pid <> pg_backend_pid()"
    async with asyncio.timeout(DEADLINE):
        while await dispatcher.value(others):
            await dispatcher.value("select pg_stat_clear_snapshot()::text")


@pytest.mark.parametrize("point", ["cutover.written", "cutover.committed"])
async def test_at_a_cutover(dispatcher: InProcess, source: Source, database: str, point: str) -> None:
    fleet = Fleet(dispatcher)
    await source.publish([1, 2])
    await fleet.work()
    before = await served(dispatcher)
    building = await deploy(dispatcher, CHANGED, hold=True)
    await fleet.catch_up()
    await _die(dispatcher, database, point, building.deployment_id)
    committed = point.endswith("committed")
    moved = {dataset for dataset, version in (await served(dispatcher)).items() if before[dataset] != version}
    assert moved == ({"copies", "echoes"} if committed else set())
    assert (await run_states(dispatcher))["copies"] == (
        ["superseded", "running"] if committed else ["running", "staged"]
    )
    if not committed:
        call = pb.CutOverDagRequest(deployment_id=building.deployment_id)
        assert state((await dispatcher.dags.CutOverDag(call)).deployment) == "active"
    await source.publish([3])
    await fleet.catch_up()
    assert state((await watch(dispatcher, building)).deployment) == "active"
    assert await missing(dispatcher) == 0


@pytest.mark.parametrize("point", ["rollback.written", "rollback.committed"])
async def test_at_a_rollback(dispatcher: InProcess, source: Source, database: str, point: str) -> None:
    fleet = Fleet(dispatcher)
    await source.publish([1])
    await fleet.work()
    before = await served(dispatcher)
    await deploy(dispatcher, CHANGED)
    await fleet.catch_up()
    changed = await served(dispatcher)
    await source.publish([2])
    await _die(dispatcher, database, point, REQUEST)
    assert await served(dispatcher) == (before if point.endswith("committed") else changed)
    answer = await dispatcher.dags.RollbackDag(pb.RollbackDagRequest(dag="chain", request_id=REQUEST))
    assert (answer.deployment.version, await served(dispatcher)) == (1, before), "the same call again"
    assert await dispatcher.value("select count(*) from activation") == 3
    await fleet.catch_up()
    assert await dispatcher.value("select count(*) from event where dataset_version_id = %s", before["copies"]) == 2
    assert await missing(dispatcher) == 0


async def test_at_an_abort(dispatcher: InProcess, source: Source, database: str) -> None:
    building = await deploy(dispatcher, CHANGED)
    await _die(dispatcher, database, "abort.written", building.deployment_id)
    assert state((await watch(dispatcher, building)).deployment) == "building"
    call = pb.AbortDeploymentRequest(deployment_id=building.deployment_id)
    assert state((await dispatcher.dags.AbortDeployment(call)).deployment) == "aborted"


async def test_at_a_page_of_a_replay(dispatcher: InProcess, source: Source, database: str) -> None:
    fleet = Fleet(dispatcher)
    await source.publish([1, 2, 3])
    await fleet.work()
    building = await deploy(dispatcher, CHANGED)
    await _die(dispatcher, database, "replay.written", "")
    assert await dispatcher.value("select count(*) from task where origin = 'replay'") == 0
    await fleet.catch_up()
    assert state((await watch(dispatcher, building)).deployment) == "active"
    assert await missing(dispatcher) == 0


async def test_at_a_page_of_a_rerun(dispatcher: InProcess, source: Source, database: str) -> None:
    fleet = Fleet(dispatcher)
    await source.publish([1, 2, 3])
    await fleet.work()
    await _die(dispatcher, database, "rerun.written", REQUEST)
    assert await dispatcher.value("select count(*) from task where origin = 'backfill'") == 0
    assert await dispatcher.value("select (select count(*) from rerun_scope) + (select count(*) from rerun_page)") == 0
    bounds = CursorRange(first=int64(1), last=int64(3))
    call = BackfillJobRequest(dag="chain", job="copies", range=bounds, request_id=REQUEST)
    assert (await dispatcher.sources.BackfillJob(call)).task_count == 3
    await fleet.work()
    made = await dispatcher.rows("select revision, count(*) from any_task where origin = 'backfill' group by 1")
    assert made == [(1, 6)]
