"""Whose halt of releases it is: one build's is no other one's, and a call that ends leaves another call's."""

import asyncio
from datetime import timedelta

import pytest

from dispatcher.db.pool import transaction
from dispatcher.db.rows import Connection, rows
from dispatcher.deploy import barrier, cutover, halting, readiness, stages
from dispatcher.deploy.advancing import advance
from tests.dispatcher.builders import Source
from tests.dispatcher.changing import CHANGED, PIPELINE, Fleet, deploy, state, watch
from tests.dispatcher.commands import words
from tests.dispatcher.in_process import InProcess
from tests.dispatcher.switches.builds import CHANGED as BUILT
from tests.dispatcher.switches.builds import HALTED, built
from traceapi.control.v1 import change_pb2
from traceapi.control.v1 import dag_service_pb2 as pb
from traceapi.control.v1.deployment_pb2 import Deployment

OF_VERSION_2 = "select action from audit where to_version = 2 order by audit_id"
OTHER = CHANGED.replace("+ 1", "+ 2")


async def test_a_halt_for_a_build_that_was_given_up_halts_nothing_for_the_next_one(
    dispatcher: InProcess, source: Source, fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is given up between the look at it and the halt, and another one is begun."""
    await source.publish([1])
    await fleet.work()
    given_up = await deploy(dispatcher, CHANGED)
    find_lack = cutover.find_lack

    async def find_and_replace(connection: Connection, dag_version_id: str, *, locked: bool = False) -> readiness.Lack:
        monkeypatch.setattr(cutover, "find_lack", find_lack)
        abort = pb.AbortDeploymentRequest(deployment_id=given_up.deployment_id)
        await dispatcher.dags.AbortDeployment(abort)
        await deploy(dispatcher, OTHER)
        return readiness.Lack((), (), ("copies",), (), working=True)

    monkeypatch.setattr(cutover, "find_lack", find_and_replace)
    await advance(dispatcher.pool, lambda: None)
    assert state((await watch(dispatcher, given_up)).deployment) == "aborted"
    assert not await dispatcher.value(HALTED)


async def _abort(dispatcher: InProcess, building: Deployment) -> None:
    await dispatcher.dags.AbortDeployment(pb.AbortDeploymentRequest(deployment_id=building.deployment_id))


async def _halt(dispatcher: InProcess, dag_version_id: str, halter: str, seconds: int) -> None:
    async with transaction(dispatcher.pool) as connection:
        await halting.halt(connection, dag_version_id, halter, timedelta(seconds=seconds))


async def _end(dispatcher: InProcess, dag_version_id: str, halter: str) -> float:
    """Answers how long they are halted on."""
    async with transaction(dispatcher.pool) as connection:
        await halting.end_halt(connection, dag_version_id, halter)
    return float(await dispatcher.value(LEFT))


async def test_nothing_is_halted_for_what_is_not_being_built(dispatcher: InProcess, source: Source) -> None:
    """What is built instead, by the time that somebody halts releases for it, needs none."""
    given_up = await deploy(dispatcher, CHANGED)
    await _abort(dispatcher, given_up)
    await deploy(dispatcher, OTHER)
    await _halt(dispatcher, given_up.deployment_id, "somebody", 1_000)
    assert not await dispatcher.value(HALTED)


async def test_who_wanted_a_halt_for_one_build_wants_none_for_the_next(dispatcher: InProcess, source: Source) -> None:
    given_up = await deploy(dispatcher, CHANGED)
    await _halt(dispatcher, given_up.deployment_id, "somebody", 3_000)
    await _abort(dispatcher, given_up)
    building = (await deploy(dispatcher, OTHER)).deployment_id
    await _halt(dispatcher, building, "another", 1_000)
    assert await _end(dispatcher, building, "another") <= 0


async def _halted_by_itself(dispatcher: InProcess, fleet: Fleet) -> Deployment:
    source, building = await built(dispatcher, fleet)
    await source.publish([3])
    await fleet.work("copies")
    await advance(dispatcher.pool, lambda: None)
    assert await dispatcher.value(HALTED)
    return building


async def test_the_halt_of_a_build_that_is_told_to_wait_for_a_person_ends(dispatcher: InProcess, fleet: Fleet) -> None:
    await _halted_by_itself(dispatcher, fleet)
    await deploy(dispatcher, BUILT, hold=True)
    assert not await dispatcher.value(HALTED)


async def test_the_halt_of_a_build_that_has_a_dead_task_ends(dispatcher: InProcess, fleet: Fleet) -> None:
    """Nothing comes of it until somebody retries or skips that."""
    await _halted_by_itself(dispatcher, fleet)
    await dispatcher.run(
        "update task t set state = 'dead', reason = 'it broke', finished_at = now() from job_version_run r"
        " where r.job_version_id = t.job_version_id and r.run_state = 'staged' and t.state in ('queued', 'released')"
    )
    await advance(dispatcher.pool, lambda: None)
    assert not await dispatcher.value(HALTED)


async def test_a_build_that_cannot_take_over_halts_nothing(
    dispatcher: InProcess, fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others read so much of what it would replace. It is on record, and no barrier is taken either."""
    source, building = await built(dispatcher, fleet)
    await source.publish([3])
    await fleet.work("copies")
    monkeypatch.setattr(stages, "MOST_SWITCHED", 1)
    before = await dispatcher.value(BARRIER, building.deployment_id)
    await advance(dispatcher.pool, lambda: None)
    assert not await dispatcher.value(HALTED)
    assert await dispatcher.value(BARRIER, building.deployment_id) == before
    refused = await dispatcher.rows("select reason, details ->> 'by_itself' from audit where outcome = 'refused'")
    assert refused == [("TOO_MANY_ROWS", "true")]


@pytest.mark.races
async def test_a_round_of_releases_that_began_before_a_barrier_releases_nothing_from_after_it(
    dispatcher: InProcess, source: Source, fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has counted what may go when the barrier is taken and another event comes, whose scope is the first."""
    await source.publish([1], watermark=False)
    await fleet.work()
    building = await deploy(dispatcher, CHANGED)
    while await dispatcher.replay():
        pass
    await fleet.work()
    await barrier.note_passed(dispatcher.pool, building.deployment_id)
    await source.publish([5], watermark=False)

    async def counted(connection: Connection, statement: str, kind: type[object], **values: object) -> list[object]:
        found = await rows(connection, statement, kind, **values)
        monkeypatch.setattr(COUNTING, rows)
        taker = barrier.Taker("chain", building.deployment_id, "user:tester")
        assert await barrier.take(dispatcher.pool, taker, cutover.HALT)
        await source.publish([4], watermark=False)
        return found

    monkeypatch.setattr(COUNTING, counted)
    await dispatcher.release()
    assert await dispatcher.value(HALTED)
    assert await dispatcher.rows(RELEASED_OF_ACTIVE) == []


async def test_a_source_is_never_halted(dispatcher: InProcess, source: Source, fleet: Fleet) -> None:
    """One that is about to go, and whose worker was restarted."""
    building = (await deploy(dispatcher, PIPELINE.replace("/data/blocks.csv", "/data/other.csv"))).deployment_id
    async with transaction(dispatcher.pool) as connection:
        await halting.halt(connection, building, building, timedelta(seconds=1_000))
    await dispatcher.expire()
    await dispatcher.end_backoffs()
    await dispatcher.release()
    assert await dispatcher.value(RUN) == "released"


BARRIER = "select barrier_at from dag_version where dag_version_id = %s"
COUNTING = "dispatcher.wakeups.release.rows"
RELEASED_OF_ACTIVE = """
select t.task_id from task t join job_version j using (job_version_id) join job_version_run r using (job_version_id)
where j.job = 'copies' and r.run_state = 'running' and t.state = 'released'
"""
RUN = """
select t.state::text from task t join job_version_run r using (job_version_id)
where t.origin = 'source_run' and r.run_state = 'running'
"""
LEFT = "select extract(epoch from releases_held_until - clock_timestamp())::float from dag where dag = 'chain'"


async def test_who_wants_no_halt_any_more_leaves_those_of_others(dispatcher: InProcess, source: Source) -> None:
    """They last as long as the one that lasts longest of those that are left, of the build's own too."""
    building = (await deploy(dispatcher, CHANGED)).deployment_id
    await _halt(dispatcher, building, building, 1_000)
    await _halt(dispatcher, building, "first", 3_000)
    await _halt(dispatcher, building, "second", 2_000)
    assert 2_900 < await dispatcher.value(LEFT) <= 3_000
    assert 1_900 < await _end(dispatcher, building, "first") <= 2_000
    assert 1_900 < await _end(dispatcher, building, "first") <= 2_000, "repeated, it changes nothing"
    assert 900 < await _end(dispatcher, building, "second") <= 1_000
    assert await _end(dispatcher, building, building) <= 0


@pytest.mark.races
async def test_a_halt_that_is_begun_while_another_one_is_ended_lasts(dispatcher: InProcess, source: Source) -> None:
    """What is left is judged on the row as it is then, not as it was when the end was asked for."""
    building = (await deploy(dispatcher, CHANGED)).deployment_id

    async def end() -> None:
        async with transaction(dispatcher.pool) as connection:
            await halting.end_halt(connection, building, "first")

    async with transaction(dispatcher.pool) as connection:
        await halting.halt(connection, building, "first", timedelta(seconds=1_000))
    async with transaction(dispatcher.pool) as connection:
        await halting.halt(connection, building, "second", timedelta(seconds=2_000))
        ending = asyncio.create_task(end())
        await dispatcher.until_waiting_or_done(ending)
        assert not ending.done()
    await ending
    assert 1_900 < await dispatcher.value(LEFT) <= 2_000


async def test_a_halt_by_itself_is_on_record_for_whoever_deployed(dispatcher: InProcess, fleet: Fleet) -> None:
    """What is active stands still meanwhile, and nobody asked at that moment."""
    await _halted_by_itself(dispatcher, fleet)
    newest = (await dispatcher.dags.ListDagChanges(change_pb2.ListDagChangesRequest(dag="chain"))).changes[0]
    assert (words(newest), newest.actor) == (("halt", 0, 2), "user:tester")
    assert newest.note == "by itself; releases of what is active, for 30 s at most"
    await advance(dispatcher.pool, lambda: None)
    assert await dispatcher.rows(OF_VERSION_2) == [("deploy",), ("halt",)]


async def test_of_releases_that_were_not_halted_nothing_is_on_record(dispatcher: InProcess, fleet: Fleet) -> None:
    """It is given up before a call that finds a barrier halts them too."""
    _, building = await built(dispatcher, fleet)
    taker = barrier.Taker("chain", building.deployment_id, "user:tester", "a call")
    await dispatcher.dags.AbortDeployment(pb.AbortDeploymentRequest(deployment_id=building.deployment_id))
    await barrier.take_for(dispatcher.pool, taker, cutover.HALT)
    assert await dispatcher.rows(OF_VERSION_2) == [("deploy",)]
