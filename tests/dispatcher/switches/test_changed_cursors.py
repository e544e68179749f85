"""A build of which a dataset's cursor has another type: a person says that it will do, and all else is waited for.
While a source of the build goes on, nobody can tell that all else has come."""

import asyncio
from datetime import timedelta

import grpc
import pytest
import pytest_asyncio

from dispatcher.deploy import cutover
from dispatcher.deploy.advancing import advance
from kernel.errors import from_rpc_error
from tests.dispatcher.builders import Source
from tests.dispatcher.changing import PIPELINE, Fleet, deploy, served, state, watch
from tests.dispatcher.in_process import DEADLINE, InProcess
from tests.dispatcher.refusals import refusal
from tests.dispatcher.switches.builds import HALTED, built
from tests.dispatcher.switches.test_held_builds import RETYPED
from traceapi.control.v1 import change_pb2
from traceapi.control.v1 import dag_service_pb2 as pb
from traceapi.control.v1.deployment_pb2 import Deployment

# As if it had been so from the beginning; what is active does nothing more after this.
FORMER_TYPE = """
update dataset_version
set cursor_type = 3
where dataset_version_id = (select dataset_version_id from pointer where dataset_id = 'sums')
"""


@pytest_asyncio.fixture
async def building(dispatcher: InProcess, fleet: Fleet) -> Deployment:
    """It has something in work that came after its staging."""
    source, building = await built(dispatcher, fleet)
    await source.publish([3], watermark=False)
    await fleet.work("copies")
    await dispatcher.run("update job_version_run set run_state = 'retired' where run_state = 'staged'")
    await fleet.work()
    await dispatcher.run("update job_version_run set run_state = 'staged' where run_state = 'retired'")
    await dispatcher.run(FORMER_TYPE)
    return building


async def test_by_itself_it_waits_for_a_person_and_says_which_datasets_it_is_about(
    dispatcher: InProcess, building: Deployment
) -> None:
    await advance(dispatcher.pool, lambda: None)
    now = await watch(dispatcher, building)
    assert state(now.deployment) == "held"
    said = "the cursors of sums have another type, which nobody can compare: when it has what you need, cut over with"
    assert now.waiting_for == f"{said} --cursors-may-differ"
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await dispatcher.dags.CutOverDag(pb.CutOverDagRequest(deployment_id=building.deployment_id))
    error = from_rpc_error(raised.value)
    assert error.reason_name == "NOT_CAUGHT_UP"
    assert said in error.message


async def test_what_its_own_source_has_yet_to_bring_is_waited_for(
    dispatcher: InProcess, source: Source, fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has not even begun to read: whatever the cursors are, there are none yet."""
    await source.publish([1, 2])
    await fleet.work()
    before = await served(dispatcher)
    building = await deploy(dispatcher, RETYPED)
    await advance(dispatcher.pool, lambda: None)
    now = await watch(dispatcher, building)
    assert state(now.deployment) == "building"
    assert now.waiting_for.startswith("the watermark of blocks, copies, echoes and 1 more would go back")
    monkeypatch.setattr(cutover, "HALT", timedelta(seconds=0.2))
    over = pb.CutOverDagRequest(deployment_id=building.deployment_id, cursors_may_differ=True)
    assert await refusal(dispatcher.dags.CutOverDag(over)) == "NOT_CAUGHT_UP"
    assert await served(dispatcher) == before


async def test_a_cutover_that_lets_cursors_differ_waits_for_the_barrier_like_any_other(
    dispatcher: InProcess, fleet: Fleet, building: Deployment
) -> None:
    over = pb.CutOverDagRequest(deployment_id=building.deployment_id, cursors_may_differ=True)
    call = asyncio.ensure_future(dispatcher.dags.CutOverDag(over))
    async with asyncio.timeout(DEADLINE):
        while not await dispatcher.value(HALTED):
            assert not call.done()
    assert (await watch(dispatcher, building)).waiting_for.startswith("sums still to catch up")
    await fleet.work()
    assert state((await call).deployment) == "active"
    request = change_pb2.ListDagChangesRequest(dag="chain")
    newest = (await dispatcher.dags.ListDagChanges(request)).changes[0]
    assert newest.note == "deploy number 2; though cursors have another type"


async def _stays(dispatcher: InProcess, building: Deployment, said: str) -> None:
    """It waits for a person, who has to say that the last scopes may be missing."""
    before = await served(dispatcher)
    await advance(dispatcher.pool, lambda: None)
    now = await watch(dispatcher, building)
    assert (state(now.deployment), now.waiting_for) == ("held", said)
    for cursors in (False, True):
        over = pb.CutOverDagRequest(deployment_id=building.deployment_id, cursors_may_differ=cursors)
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await dispatcher.dags.CutOverDag(over)
        error = from_rpc_error(raised.value)
        assert (error.reason_name, said in error.message) == ("NOT_CAUGHT_UP", True)
    assert await served(dispatcher) == before
    over = pb.CutOverDagRequest(deployment_id=building.deployment_id, watermarks_may_go_back=True)
    assert state((await dispatcher.dags.CutOverDag(over)).deployment) == "active"


UNDERWAY = (
    "a source of it goes on, and nobody can compare how far it is (blocks is at {}, what is active at {} and 3 more):"
    " when it has what you need, cut over with --watermarks-may-go-back"
)


async def test_a_source_that_has_just_begun_is_not_taken_for_all_else(
    dispatcher: InProcess, source: Source, fleet: Fleet
) -> None:
    """Its cursors have another type, so nobody can tell that it is at the first of 50 scopes."""
    await source.publish(list(range(1, 51)))
    await fleet.work()
    await dispatcher.derive()
    building = await deploy(dispatcher, RETYPED)
    await dispatcher.run(
        "insert into watermark (dataset_version_id, cursor_key) select s.dataset_version_id, '\\x8000000000000001'"
        " from dag_version_dataset s where s.dag_version_id = %s on conflict do nothing",
        building.deployment_id,
    )
    await _stays(dispatcher, building, UNDERWAY.format("1970-01-01T00:00:00.000001Z", "50"))


async def test_a_source_without_a_watermark_is_not_replaced_by_itself_by_one_that_has_read_nothing(
    dispatcher: InProcess, source: Source, fleet: Fleet
) -> None:
    await source.publish([1, 2], watermark=False)
    await fleet.work()
    building = await deploy(dispatcher, PIPELINE.replace("/data/blocks.csv", "/data/other.csv"))
    await _stays(dispatcher, building, UNDERWAY.format("no watermark", "no watermark"))
