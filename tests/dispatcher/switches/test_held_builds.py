"""Builds that wait for a person: when they are ready, and what a cutover does about the last scopes under traffic."""

import asyncio
from datetime import timedelta

import grpc
import pytest

from dispatcher.deploy import cutover
from dispatcher.deploy.advancing import advance
from kernel.errors import from_rpc_error
from tests.dispatcher.builders import Source
from tests.dispatcher.changing import CHANGED, PIPELINE, Fleet, deploy, served, state, watch
from tests.dispatcher.in_process import DEADLINE, InProcess
from traceapi.control.v1 import dag_service_pb2 as pb
from traceapi.control.v1.deployment_pb2 import Deployment

HALTED = "select coalesce(releases_held_until > clock_timestamp(), false) from dag where dag = 'chain'"
# The source's cursor is another column, and so is that of all that is downstream of it.
RETYPED = (
    PIPELINE.replace("cursor: number", "cursor: made")
    .replace("cursor: {column: number, type: int64}", "cursor: {column: made, type: timestamp}")
    .replace("schema: {number: int64}", "schema: {made: timestamp, number: int64}")
    .replace("{sql: select number from blocks}", '{sql: "select made, number from blocks"}')
)


async def _behind(dispatcher: InProcess, source: Source, fleet: Fleet, deployment: Deployment) -> None:
    """The active version is ahead by a scope, as at every moment while there is traffic."""
    while await dispatcher.replay():
        pass
    await fleet.work()
    await source.publish([9])
    await dispatcher.run("update job_version_run set run_state = 'retired' where run_state = 'staged'")
    await fleet.work()
    await dispatcher.derive()
    await dispatcher.run("update job_version_run set run_state = 'staged' where run_state = 'retired'")
    assert (await watch(dispatcher, deployment)).waiting_for == "the watermark of copies, echoes would go back"


async def test_a_build_is_held_while_it_is_only_behind_by_the_last_scopes(
    dispatcher: InProcess, source: Source, fleet: Fleet
) -> None:
    await source.publish([1])
    await fleet.work()
    building = await deploy(dispatcher, CHANGED, hold=True)
    await advance(dispatcher.pool, lambda: None)
    assert state((await watch(dispatcher, building)).deployment) == "building", "what was there is still replayed"
    await _behind(dispatcher, source, fleet, building)
    await advance(dispatcher.pool, lambda: None)
    assert state((await watch(dispatcher, building)).deployment) == "held"
    assert not await dispatcher.value(HALTED), "nobody waits for it yet"


async def test_a_cutover_halts_what_is_active_until_the_build_is_level(
    dispatcher: InProcess, source: Source, fleet: Fleet
) -> None:
    await source.publish([1])
    await fleet.work()
    before = await served(dispatcher)
    building = await deploy(dispatcher, CHANGED, hold=True)
    await _behind(dispatcher, source, fleet, building)
    call = asyncio.ensure_future(dispatcher.dags.CutOverDag(pb.CutOverDagRequest(deployment_id=building.deployment_id)))
    async with asyncio.timeout(DEADLINE):
        while not await dispatcher.value(HALTED):
            assert not call.done()
    await source.publish([10])
    await fleet.work()
    over = await call
    assert state(over.deployment) == "active"
    after = await served(dispatcher)
    assert {dataset for dataset in after if after[dataset] != before[dataset]} == {"copies", "echoes"}
    old = await dispatcher.rows(
        "select t.state::text from any_task t join job_version_run r using (job_version_id)"
        " join job_version j using (job_version_id)"
        " where r.run_state = 'superseded' and j.job = 'copies' order by t.scope_first"
    )
    assert old == [("succeeded",), ("succeeded",), ("queued",)], "what was accepted meanwhile the former version left"


async def test_a_cutover_that_does_not_get_level_says_so_and_lets_releases_go_on(
    dispatcher: InProcess, source: Source, fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    await source.publish([1])
    await fleet.work()
    building = await deploy(dispatcher, CHANGED, hold=True)
    await _behind(dispatcher, source, fleet, building)
    monkeypatch.setattr(cutover, "HALT", timedelta(seconds=0.3))
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await dispatcher.dags.CutOverDag(pb.CutOverDagRequest(deployment_id=building.deployment_id))
    error = from_rpc_error(raised.value)
    assert error.reason_name == "NOT_CAUGHT_UP"
    assert "copies still to catch up. Releases of what is active were halted" in error.message
    assert not await dispatcher.value(HALTED)


@pytest.mark.parametrize("hold", [True, False])
async def test_a_build_whose_cursors_changed_their_type_waits_for_a_person(
    dispatcher: InProcess, source: Source, fleet: Fleet, hold: bool
) -> None:
    """Nobody can compare them, so it takes over when it is told and not before."""
    await source.publish([1])
    await fleet.work()
    building = await deploy(dispatcher, RETYPED, hold=hold)
    await dispatcher.run(
        "update task set state = 'succeeded', finished_at = now() where origin = 'source_run' and state = 'queued'"
    )
    await advance(dispatcher.pool, lambda: None)
    now = await watch(dispatcher, building)
    assert state(now.deployment) == "held"
    assert now.waiting_for == (
        "the cursors of blocks, copies, echoes and 1 more have another type, which nobody can compare: when it has what"
        " you need, cut over with --cursors-may-differ"
    )
    over = await dispatcher.dags.CutOverDag(
        pb.CutOverDagRequest(deployment_id=building.deployment_id, cursors_may_differ=True)
    )
    assert state(over.deployment) == "active"
