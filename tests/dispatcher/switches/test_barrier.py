"""The barrier of a cutover: nothing that what is active has done is missing in the version that takes its place, though
no watermark tells; and a build gets there however much goes on."""

import asyncio
from datetime import timedelta

import grpc
import pytest

from dispatcher.db.pool import transaction
from dispatcher.deploy import barrier, cutover, halting, progress
from dispatcher.deploy.advancing import advance
from kernel.errors import from_rpc_error
from tests.dispatcher.changing import Fleet, deploy, served, state, watch
from tests.dispatcher.in_process import DEADLINE, InProcess
from tests.dispatcher.refusals import refusal
from tests.dispatcher.switches.builds import (
    CHANGED,
    HALTED,
    OPEN,
    READER,
    built,
    run_again,
    work_of_active,
    work_one_of_staged,
)
from traceapi.control.v1 import dag_service_pb2 as pb
from traceapi.control.v1.deployment_pb2 import Deployment

HALTED_UNTIL = "update dag set releases_held_until = clock_timestamp() - %s::interval where dag = 'chain'"
BARRIER = "select barrier_at from dag_version where dag_version_id = %s"


async def _advance(dispatcher: InProcess, building: Deployment) -> str:
    await advance(dispatcher.pool, lambda: None)
    return state((await watch(dispatcher, building)).deployment)


async def test_a_cutover_waits_for_what_was_run_again_upstream(dispatcher: InProcess, fleet: Fleet) -> None:
    _, building = await built(dispatcher, fleet)
    await run_again(dispatcher, 1)
    await work_of_active(dispatcher, fleet)
    assert await dispatcher.rows(OPEN, "staged") == [("sums", 1)], "what is active shows the scope as it is now"
    assert await _advance(dispatcher, building) == "building"
    assert (await watch(dispatcher, building)).waiting_for == "sums still to catch up"
    await work_one_of_staged(dispatcher, fleet, "sums")
    assert await dispatcher.rows(OPEN, "staged") == [("last", 1)]
    assert await _advance(dispatcher, building) == "building", "nor is what comes of it done"
    await fleet.work()
    assert await _advance(dispatcher, building) == "active"


async def test_a_cutover_waits_for_inputs_of_which_no_watermark_tells(dispatcher: InProcess, fleet: Fleet) -> None:
    source, building = await built(dispatcher, fleet, watermark=False)
    await source.publish([3], watermark=False)
    await fleet.work("copies")
    await work_of_active(dispatcher, fleet)
    assert await _advance(dispatcher, building) == "building"
    await fleet.work()
    assert await _advance(dispatcher, building) == "active"


async def test_a_build_takes_over_though_there_is_something_in_work_at_every_look(
    dispatcher: InProcess, fleet: Fleet
) -> None:
    """What comes after the barrier is not waited for; what is active does nothing of it while releases are halted."""
    source, building = await built(dispatcher, fleet, watermark=False)
    await source.publish([3], watermark=False)
    await fleet.work("copies")
    looks = 0
    while await _advance(dispatcher, building) != "active":
        looks += 1
        assert looks < 5
        await source.publish([3 + looks], watermark=False)
        await fleet.work("copies")
        await work_one_of_staged(dispatcher, fleet, "sums" if looks == 1 else "last")
        assert await dispatcher.rows(OPEN, "staged"), "never is all of it done"
    assert looks == 2
    assert dict(await dispatcher.rows(OPEN, "superseded"))["sums"] >= looks


async def test_a_barrier_comes_with_a_halt_of_what_is_about_to_go(dispatcher: InProcess, fleet: Fleet) -> None:
    source, building = await built(dispatcher, fleet)
    await source.publish([3])
    await fleet.work("copies")
    assert not await dispatcher.value(HALTED)
    assert await _advance(dispatcher, building) == "building"
    assert await dispatcher.value(HALTED)


async def test_no_barrier_comes_without_a_halt(dispatcher: InProcess, fleet: Fleet) -> None:
    """Where releases were halted a moment ago it comes later: else what is active would be ahead again by then."""
    source, building = await built(dispatcher, fleet)
    await dispatcher.run(HALTED_UNTIL, "10 s")
    await source.publish([3])
    await fleet.work("copies")
    before = await dispatcher.value(BARRIER, building.deployment_id)
    assert await _advance(dispatcher, building) == "building"
    assert (await dispatcher.value(BARRIER, building.deployment_id), await dispatcher.value(HALTED)) == (before, False)
    assert (await watch(dispatcher, building)).waiting_for == "what came last is still to be done"
    await fleet.work()
    await run_again(dispatcher, 1)
    await work_of_active(dispatcher, fleet)
    assert await _advance(dispatcher, building) == "building"
    await dispatcher.run(HALTED_UNTIL, "31 s")
    assert await _advance(dispatcher, building) == "building"
    assert await dispatcher.value(BARRIER, building.deployment_id) > before
    assert await dispatcher.value(HALTED)
    await fleet.work()
    assert await _advance(dispatcher, building) == "active"


async def test_a_build_with_nothing_in_work_takes_over_at_once(dispatcher: InProcess, fleet: Fleet) -> None:
    _, building = await built(dispatcher, fleet)
    before = await dispatcher.value(BARRIER, building.deployment_id)
    assert await _advance(dispatcher, building) == "active"
    assert await dispatcher.value(BARRIER, building.deployment_id) == before


async def _passed(dispatcher: InProcess, fleet: Fleet) -> Deployment:
    """It has passed a barrier of its own, and has something in work that came after it."""
    source, building = await built(dispatcher, fleet, watermark=False)
    await source.publish([3], watermark=False)
    await fleet.work("copies")
    assert await _advance(dispatcher, building) == "building"
    await fleet.work("sums", "last")
    await barrier.note_passed(dispatcher.pool, building.deployment_id)
    await source.publish([4], watermark=False)
    await fleet.work("copies")
    return building


async def test_a_barrier_that_was_passed_is_good_while_releases_are_halted(dispatcher: InProcess, fleet: Fleet) -> None:
    """Else a build that has something in work at every look would never take over."""
    building = await _passed(dispatcher, fleet)
    assert await dispatcher.value(HALTED)
    assert await _advance(dispatcher, building) == "active"


async def test_once_they_go_on_another_one_is_needed(dispatcher: InProcess, fleet: Fleet) -> None:
    """What is active does what came after the first one. A halt that begins later does not take that back."""
    building = await _passed(dispatcher, fleet)
    before = await dispatcher.value(BARRIER, building.deployment_id)
    await dispatcher.run(HALTED_UNTIL, "1 s")
    assert await _advance(dispatcher, building) == "building"
    async with transaction(dispatcher.pool) as connection:
        await halting.halt(connection, building.deployment_id, "another", timedelta(seconds=1))
    assert await _advance(dispatcher, building) == "building"
    assert await dispatcher.value(BARRIER, building.deployment_id) == before
    await dispatcher.run(HALTED_UNTIL, "31 s")
    assert await _advance(dispatcher, building) == "building"
    assert await dispatcher.value(BARRIER, building.deployment_id) > before
    await fleet.work("sums", "last")
    assert await _advance(dispatcher, building) == "active"


async def test_a_call_that_is_given_up_leaves_no_barrier_that_is_good_without_its_halt(
    dispatcher: InProcess, fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, building = await built(dispatcher, fleet, hold=True)
    await source.publish([3])
    await fleet.work("copies")
    over = pb.CutOverDagRequest(deployment_id=building.deployment_id)
    call = asyncio.ensure_future(dispatcher.dags.CutOverDag(over))
    async with asyncio.timeout(DEADLINE):
        while not await dispatcher.value(HALTED):
            assert not call.done()
        call.cancel()
        while await dispatcher.value(HALTED):
            pass
    await fleet.work()
    await run_again(dispatcher, 1)
    await work_of_active(dispatcher, fleet)
    monkeypatch.setattr(cutover, "HALT", timedelta(seconds=0.3))
    assert await refusal(dispatcher.dags.CutOverDag(over)) == "NOT_CAUGHT_UP", "the active version shows it already"
    await fleet.work()
    assert state((await dispatcher.dags.CutOverDag(over)).deployment) == "active"


async def test_a_cutover_by_hand_waits_for_what_wasrun_again(
    dispatcher: InProcess, fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For as long as a halt lasts; and the barrier stays, so that the next call need not begin again."""
    _, building = await built(dispatcher, fleet, hold=True)
    assert await _advance(dispatcher, building) == "held"
    await run_again(dispatcher, 1)
    await work_of_active(dispatcher, fleet)
    monkeypatch.setattr(cutover, "HALT", timedelta(seconds=0.3))
    over = pb.CutOverDagRequest(deployment_id=building.deployment_id)
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await dispatcher.dags.CutOverDag(over)
    error = from_rpc_error(raised.value)
    assert error.reason_name == "NOT_CAUGHT_UP"
    assert not await dispatcher.value(HALTED)
    await fleet.work()
    assert state((await dispatcher.dags.CutOverDag(over)).deployment) == "active"


async def test_who_waives_the_last_scopes_waits_for_no_barrier(dispatcher: InProcess, fleet: Fleet) -> None:
    _, building = await built(dispatcher, fleet, hold=True)
    await run_again(dispatcher, 1)
    await work_of_active(dispatcher, fleet)
    await _advance(dispatcher, building)
    over = pb.CutOverDagRequest(deployment_id=building.deployment_id, watermarks_may_go_back=True)
    assert state((await dispatcher.dags.CutOverDag(over)).deployment) == "active"


async def test_more_tasks_than_a_look_reads_block_no_cutover(
    dispatcher: InProcess, fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of them came after the barrier: that is found without the locks, and is known under them."""
    monkeypatch.setattr(progress, "_MOST_WAITING", 3)
    source, building = await built(dispatcher, fleet)
    await source.publish([3])
    await fleet.work("copies")
    assert await _advance(dispatcher, building) == "building"
    await fleet.work("sums", "last")
    await source.publish(range(4, 12), watermark=False)
    await fleet.work("copies")
    assert dict(await dispatcher.rows(OPEN, "staged")) == {"sums": 8}
    assert await _advance(dispatcher, building) == "active"


async def test_a_pointer_that_moves_meanwhile_is_waited_for(dispatcher: InProcess, fleet: Fleet) -> None:
    """A build of another DAG that reads it is owed what that version has, though it had passed its barrier."""
    await built(dispatcher, fleet)
    await dispatcher.deploy(READER)
    await fleet.catch_up()
    before = await served(dispatcher)
    building = await deploy(dispatcher, READER.replace("splitter", "noop"), hold=True)
    await fleet.catch_up()
    passed = "select barrier_passed_at is not null from dag_version where dag_version_id = %s"
    assert await dispatcher.value(passed, building.deployment_id)
    await deploy(dispatcher, CHANGED.replace("+ 1", "+ 2"))
    while await served(dispatcher) == before:
        await fleet.catch_up("sums", "last")
    assert not await dispatcher.value(passed, building.deployment_id)
