"""Plans against what a deploy then does: the same jobs, as many tasks; and refused where the base moved."""

from collections import Counter

import grpc
import pytest

from kernel.errors import from_rpc_error
from kernel.ids import new_id
from tests.dispatcher.builders import Source
from tests.dispatcher.changing import CHANGED, PIPELINE, TUNED, Fleet, deploy, roll_back, state, watch
from tests.dispatcher.in_process import InProcess
from tests.dispatcher.test_plan_dag import changes, job_of, plan
from traceapi.control.v1 import dag_service_pb2 as pb
from traceapi.control.v1.plan_pb2 import JobChange

RIVAL = """\
dag: rival
jobs:
  blocks:
    source: replay
    config: {path: /data/b.csv, cursor: number}
    outputs: {gone: {cursor: {column: number, type: int64}, schema: {number: int64}}}
"""


async def apply(dispatcher: InProcess, plan_id: str, request_id: str | None = None) -> pb.DeployDagResponse:
    return await dispatcher.dags.DeployDag(pb.DeployDagRequest(plan_id=plan_id, request_id=request_id or new_id()))


async def refusal(dispatcher: InProcess, plan_id: str) -> str:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await apply(dispatcher, plan_id)
    return from_rpc_error(raised.value).reason_name


async def test_a_plan_is_deployed_as_it_was_made(dispatcher: InProcess, source: Source, fleet: Fleet) -> None:
    await source.publish([1, 2, 3])
    await fleet.work()
    planned = await plan(dispatcher, CHANGED)
    assert changes(planned) == [
        ("blocks", "shared", 0),
        ("apart", "shared", 0),
        ("copies", "changed", 3),
        ("echo", "downstream", 3),
    ]
    building = (await apply(dispatcher, planned.plan_id.upper())).deployment
    assert (state(building), building.version) == ("building", 2)
    while await dispatcher.replay():
        pass
    done = Counter(await fleet.work())
    assert done == {job.job: job.task_count for job in planned.jobs if job.task_count}
    await fleet.catch_up()
    active = (await watch(dispatcher, building)).deployment
    assert state(active) == "active"
    recorded = "select plan_id::text from audit where method = 'DagService.DeployDag' order by audit_id"
    assert await dispatcher.rows(recorded) == [(None,), (planned.plan_id,)]
    now = {job.job: job for job in active.jobs}
    for job in planned.jobs:
        key = await dispatcher.value(
            "select fingerprint from job_version where job_version_id = %s", now[job.job].job_version_id
        )
        assert key == job.fingerprint


async def test_deploying_a_plan_can_be_repeated(dispatcher: InProcess, source: Source) -> None:
    planned, request_id = await plan(dispatcher, CHANGED), new_id()
    first = await apply(dispatcher, planned.plan_id, request_id)
    again = await apply(dispatcher, planned.plan_id, request_id)
    assert again.deployment.deployment_id == first.deployment.deployment_id
    assert (first.unchanged, again.unchanged) == (False, True)


async def test_a_plan_whose_base_moved_is_refused(dispatcher: InProcess, source: Source, fleet: Fleet) -> None:
    first = await plan(dispatcher, CHANGED)
    await deploy(dispatcher, TUNED)  # active at once
    assert await refusal(dispatcher, first.plan_id) == "BASE_MOVED"
    assert await dispatcher.value("select staged_version_id from dag where dag = 'chain'") is None
    second = await plan(dispatcher, CHANGED)
    assert second.base_version == 2
    await roll_back(dispatcher)
    assert await refusal(dispatcher, second.plan_id) == "BASE_MOVED"
    assert state((await apply(dispatcher, first.plan_id)).deployment) == "building", "its base is active again"


async def test_a_plan_on_nothing_is_refused_where_something_is_active_now(dispatcher: InProcess) -> None:
    planned = await plan(dispatcher, PIPELINE)
    await dispatcher.deploy(TUNED)
    assert await refusal(dispatcher, planned.plan_id) == "BASE_MOVED"


async def test_a_first_version_is_deployed_by_its_plan(dispatcher: InProcess) -> None:
    planned = await plan(dispatcher, PIPELINE)
    assert state((await apply(dispatcher, planned.plan_id)).deployment) == "active"


async def test_an_unknown_plan_is_not_found(dispatcher: InProcess) -> None:
    assert await refusal(dispatcher, new_id()) == "PLAN_NOT_FOUND"


async def test_what_was_before_is_reused_for_the_events_that_it_missed(
    dispatcher: InProcess, source: Source, fleet: Fleet
) -> None:
    """Deploy A, deploy B, plan A."""
    await source.publish([1, 2, 3])
    await fleet.work()
    await deploy(dispatcher, CHANGED)
    await fleet.catch_up()
    await source.publish([4, 5])
    await fleet.work()
    planned = await plan(dispatcher, PIPELINE)
    assert changes(planned) == [
        ("blocks", "shared", 0),
        ("apart", "shared", 0),
        ("copies", "reused", 2),
        ("echo", "reused", 2),
    ]
    assert job_of(planned, "copies").field_changes[0].path == "config.sql"
    building = (await apply(dispatcher, planned.plan_id)).deployment
    while await dispatcher.replay():
        pass
    assert Counter(await fleet.work()) == {"copies": 2, "echo": 2}
    await fleet.catch_up()
    assert state((await watch(dispatcher, building)).deployment) == "active"


async def test_what_an_aborted_build_left_is_still_to_be_done(
    dispatcher: InProcess, source: Source, fleet: Fleet
) -> None:
    await source.publish([1, 2, 3])
    await fleet.work()
    building = await deploy(dispatcher, CHANGED)
    assert job_of(await plan(dispatcher, CHANGED), "copies").task_count == 3, "its replay has not begun"
    while await dispatcher.replay():
        pass
    assert job_of(await plan(dispatcher, CHANGED), "copies").task_count == 3, "its tasks wait"
    await dispatcher.dags.AbortDeployment(pb.AbortDeploymentRequest(deployment_id=building.deployment_id))
    await source.publish([4])
    copies = job_of(await plan(dispatcher, CHANGED), "copies")
    assert (copies.change, copies.task_count) == (JobChange.JOB_CHANGE_REUSED, 4)


async def test_a_dataset_that_is_no_longer_produced_still_has_its_owner(dispatcher: InProcess, source: Source) -> None:
    await dispatcher.run("insert into dataset (dataset_id, folded_id, dag) values ('gone', 'gone', 'chain')")
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await plan(dispatcher, RIVAL)
    assert from_rpc_error(raised.value).reason_name == "DATASET_OWNED"
