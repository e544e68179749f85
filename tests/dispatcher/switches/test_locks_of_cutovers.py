"""What acceptance waits for when somebody asks for a cutover: for none that is refused, and for no count of tasks."""

import asyncio
from datetime import timedelta

import grpc
import pytest

from dispatcher.db.pool import Pool, transaction
from dispatcher.db.rows import Connection
from dispatcher.deploy import barrier, cutover, halting, levelling, progress, stages
from dispatcher.deploy.progress import StagedJobRow
from dispatcher.deploy.readiness import Lack, Waiver
from kernel.errors import from_rpc_error
from tests.chaos.pausing import paused
from tests.dispatcher.builders import Source
from tests.dispatcher.changing import CHANGED, Fleet, deploy, missing, roll_back, run_states, served, state
from tests.dispatcher.in_process import DEADLINE, InProcess
from tests.dispatcher.switches.builds import HALTED
from traceapi.control.v1 import dag_service_pb2 as pb
from traceapi.control.v1.deployment_pb2 import Deployment

AWAITED = """
update dag_version
set barrier_at = clock_timestamp(), barrier_passed_at = null, barrier_retaken = true
where dag_version_id = %s
"""


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """When the locks were taken, and whether tasks were read to tell what is from before the barrier."""
    taken: list[str] = []
    stop_acceptance, staged_jobs = stages.stop_acceptance, progress.staged_jobs

    async def noted(connection: Connection, dag: str, other: str | None = None) -> None:
        taken.append("locks")
        await stop_acceptance(connection, dag, other)

    async def looked(connection: Connection, dag_version_id: str, *, locked: bool = False) -> list[StagedJobRow]:
        taken.append("look" if locked else "long look")
        return await staged_jobs(connection, dag_version_id, locked=locked)

    monkeypatch.setattr(stages, "stop_acceptance", noted)
    monkeypatch.setattr(progress, "staged_jobs", looked)
    return taken


async def _built(dispatcher: InProcess, source: Source, fleet: Fleet) -> Deployment:
    """With a task in its queue, which came after the staging."""
    await source.publish([1])
    await fleet.work()
    building = await deploy(dispatcher, CHANGED, hold=True)
    while await dispatcher.replay():
        pass
    await fleet.work()
    await dispatcher.derive()
    await source.publish([2])
    return building


async def test_a_cutover_that_has_to_wait_for_what_was_there_takes_no_locks(
    dispatcher: InProcess, source: Source, steps: list[str]
) -> None:
    await source.publish([1])
    building = await deploy(dispatcher, CHANGED, hold=True)
    steps.clear()
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await dispatcher.dags.CutOverDag(pb.CutOverDagRequest(deployment_id=building.deployment_id))
    error = from_rpc_error(raised.value)
    assert (error.reason_name, error.message) == (
        "NOT_CAUGHT_UP",
        "version 2 of chain cannot take over yet: copies still to catch up",
    )
    assert "locks" not in steps


async def test_no_tasks_are_counted_under_the_locks(
    dispatcher: InProcess, source: Source, fleet: Fleet, steps: list[str]
) -> None:
    """What is missing is told when they are released."""
    building = await _built(dispatcher, source, fleet)
    await dispatcher.run(AWAITED, building.deployment_id)
    steps.clear()
    assert await cutover.cut_over(dispatcher.pool, building.deployment_id, "user:tester") is None
    assert steps == ["locks", "look"]
    refusal = await cutover.not_caught_up(dispatcher.pool, building.deployment_id)
    assert steps == ["locks", "look", "long look"]
    assert refusal.message == "version 2 of chain cannot take over yet: copies still to catch up"


async def test_what_is_known_to_be_done_is_seen_under_the_locks(
    dispatcher: InProcess, source: Source, fleet: Fleet
) -> None:
    """The task that is in work came after the barrier: that was found before."""
    building = await _built(dispatcher, source, fleet)
    async with transaction(dispatcher.pool) as connection:
        await halting.halt(connection, building.deployment_id, "somebody", cutover.HALT)
    await dispatcher.run(AWAITED, building.deployment_id)
    await dispatcher.run("update task set created_at = clock_timestamp() where state = 'queued'")
    assert await cutover.cut_over(dispatcher.pool, building.deployment_id, "user:tester") is None
    await barrier.note_passed(dispatcher.pool, building.deployment_id)
    over = await cutover.cut_over(dispatcher.pool, building.deployment_id, "user:tester")
    assert over is not None
    assert over.state == "active"


async def test_a_cutover_that_waits_takes_the_locks_twice(
    dispatcher: InProcess, source: Source, fleet: Fleet, steps: list[str]
) -> None:
    """For its barrier, and once that is passed. However often it looks until then, it takes none."""
    building = await _built(dispatcher, source, fleet)
    steps.clear()
    call = asyncio.ensure_future(dispatcher.dags.CutOverDag(pb.CutOverDagRequest(deployment_id=building.deployment_id)))
    async with asyncio.timeout(DEADLINE):
        while steps.count("long look") < 4:
            assert not call.done()
            await asyncio.sleep(0)
    assert await dispatcher.value(HALTED)
    assert steps.count("locks") == 1
    await fleet.work()
    assert state((await call).deployment) == "active"
    assert steps.count("locks") == 2
    assert steps[-2:] == ["locks", "look"]


async def test_events_are_accepted_while_a_rollback_switches_its_jobs(
    dispatcher: InProcess, source: Source, fleet: Fleet
) -> None:
    """That is half of its rows. The version that comes back misses none of these events."""
    await source.publish([1])
    await fleet.work()
    before = await served(dispatcher)
    await deploy(dispatcher, CHANGED)
    await fleet.catch_up()
    with paused(cutover, "switch_jobs") as pause:
        back = asyncio.create_task(roll_back(dispatcher))
        await pause.reached()
        async with asyncio.timeout(DEADLINE):
            await source.publish([2])
        assert await served(dispatcher) != before
        pause.over()
        await back
    assert await served(dispatcher) == before
    await fleet.catch_up()
    assert await missing(dispatcher) == 0


async def test_a_cutover_that_finds_something_new_under_the_locks_leaves_the_jobs_as_they_were(
    dispatcher: InProcess, source: Source, fleet: Fleet
) -> None:
    """What came while its jobs were switched, before acceptance had to wait."""
    await source.publish([1])
    await fleet.work()
    building = await deploy(dispatcher, CHANGED, hold=True)
    await fleet.catch_up()
    before = await run_states(dispatcher), await served(dispatcher)
    await dispatcher.run(AWAITED, building.deployment_id)
    with paused(cutover, "switch_jobs") as pause:
        over = asyncio.create_task(cutover.cut_over(dispatcher.pool, building.deployment_id, "user:tester"))
        await pause.reached()
        async with asyncio.timeout(DEADLINE):
            await source.publish([2])
        pause.over()
        assert await over is None
    assert (await run_states(dispatcher), await served(dispatcher)) == before
    await fleet.work()
    again = await cutover.cut_over(dispatcher.pool, building.deployment_id, "user:tester")
    assert again is not None
    assert again.state == "active"


async def test_a_version_that_is_refused_under_the_locks_is_tried_again_after_a_rest(
    dispatcher: InProcess, source: Source, fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However often a look without locks finds that nothing is missing."""
    await source.publish([1])
    await fleet.work()
    building = await deploy(dispatcher, CHANGED, hold=True)
    await fleet.catch_up()
    tries = 0

    async def refused(pool: Pool, dag_version_id: str, actor: str, waiver: Waiver) -> None:
        nonlocal tries
        tries += 1

    monkeypatch.setattr(cutover, "cut_over", refused)
    monkeypatch.setattr(cutover, "HALT", timedelta(seconds=3 * levelling.LOOK_SECONDS))
    monkeypatch.setattr(levelling, "IDLE_SECONDS", 60.0)
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await dispatcher.dags.CutOverDag(pb.CutOverDagRequest(deployment_id=building.deployment_id))
    assert from_rpc_error(raised.value).reason_name == "NOT_CAUGHT_UP"
    assert 1 <= tries <= 4


async def test_a_call_rests_for_as_long_as_its_look_took(
    dispatcher: InProcess, source: Source, fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that with many tasks no more than half of a connection is its own."""
    building = await _built(dispatcher, source, fleet)
    now = 100.0
    rests: list[float] = []
    find_lack = cutover.find_lack

    async def long_look(connection: Connection, dag_version_id: str, *, locked: bool = False) -> Lack:
        nonlocal now
        now += 3.0
        return await find_lack(connection, dag_version_id, locked=locked)

    async def rest(seconds: float) -> None:
        rests.append(seconds)

    monkeypatch.setattr(cutover, "find_lack", long_look)
    monkeypatch.setattr(levelling, "_now", lambda: now)
    taker = barrier.Taker("chain", building.deployment_id, "user:tester", "call")
    wait = levelling._Wait(dispatcher.pool, taker, sleep=rest)
    assert await wait.go_on(await wait.find_lack())
    assert rests == [3.0]
