"""What a version left undone when it went, or was given up, counts when it comes back; and who follows counts too."""

import pytest

from dispatcher.deploy import stages
from kernel.ids import new_id
from tests.dispatcher.builders import Source
from tests.dispatcher.changing import CHANGED, Fleet, deploy, roll_back, state, watch
from tests.dispatcher.in_process import InProcess
from traceapi.control.v1 import dag_service_pb2 as pb

READER = """\
dag: reader
jobs:
  mine: {operator: splitter, inputs: {copies: {}}, outputs: {mine: {storage: none}}}
"""
OTHER_READER = READER.replace("  mine: {operator", "  other: {operator")


async def test_what_an_aborted_build_had_queued_is_waited_for_when_it_is_begun_again(
    dispatcher: InProcess, source: Source, fleet: Fleet
) -> None:
    """And what comes of it, all the way down: a job without a cursor has no watermark that would tell."""
    await source.publish([1])
    await fleet.work()
    first = await deploy(dispatcher, CHANGED)
    while await dispatcher.replay():
        pass
    await fleet.work()
    await source.publish([2])
    await dispatcher.dags.AbortDeployment(pb.AbortDeploymentRequest(deployment_id=first.deployment_id))
    again = await deploy(dispatcher, CHANGED)
    assert (await watch(dispatcher, again)).waiting_for == "copies still to catch up"
    await fleet.work("copies")
    assert (await watch(dispatcher, again)).waiting_for == "echo still to catch up"
    await fleet.catch_up()
    assert state((await watch(dispatcher, again)).deployment) == "active"


async def test_what_waited_when_a_version_was_replaced_is_lag_when_it_is_restored(
    dispatcher: InProcess, source: Source, fleet: Fleet
) -> None:
    await source.publish([1])
    await fleet.work()
    building = await deploy(dispatcher, CHANGED)
    await source.publish([2])
    await dispatcher.run("update dag set releases_held_until = clock_timestamp() + interval '1 minute'")
    await fleet.catch_up()
    assert state((await watch(dispatcher, building)).deployment) == "active"
    request_id = new_id()
    assert (await roll_back(dispatcher, request_id=request_id)).lag_event_count == 1
    await dispatcher.run("update dag_version set active_at = active_at + interval '1 minute' where state = 'active'")
    assert (await roll_back(dispatcher, request_id=request_id)).lag_event_count == 1, (
        "however long the locks were waited for"
    )
    await source.publish([3])
    assert (await roll_back(dispatcher, request_id=request_id)).lag_event_count == 1, "what comes later is no lag"
    await fleet.catch_up()
    assert (await roll_back(dispatcher, request_id=request_id)).lag_event_count == 0


async def test_a_reader_that_comes_back_is_owed_nothing_that_it_had_of_the_version_it_read_last(
    dispatcher: InProcess, source: Source, fleet: Fleet
) -> None:
    """That is not the newest one: the owner had rolled back."""
    await source.publish([1, 2])
    await fleet.work()
    await dispatcher.deploy(READER)
    await fleet.catch_up()
    await deploy(dispatcher, CHANGED)
    await fleet.catch_up()
    await roll_back(dispatcher)
    await source.publish([3])
    await fleet.catch_up()
    await dispatcher.deploy(OTHER_READER)
    await fleet.catch_up()
    await deploy(dispatcher, CHANGED.replace("+ 1", "+ 2"))
    await fleet.catch_up()
    await dispatcher.dags.RollbackDag(pb.RollbackDagRequest(dag="reader", to_version=1, request_id=new_id()))
    await fleet.catch_up()
    scopes = await dispatcher.rows(
        "select t.scope_first from any_task t join job_version j using (job_version_id) where j.job = 'mine' order by 1"
    )
    assert [int.from_bytes(key, "big") - 2**63 for (key,) in scopes] == [1, 2, 3]


async def test_jobs_of_others_that_follow_count_for_the_rows_of_a_switch(
    dispatcher: InProcess, source: Source, fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four job versions and a trigger each; and three rows for the one input of the reader."""
    monkeypatch.setattr(stages, "MOST_SWITCHED", 10)
    held = await deploy(dispatcher, CHANGED, hold=True)
    await fleet.catch_up()
    await dispatcher.deploy(READER)
    with pytest.raises(Exception, match=r"11 rows in one transaction, 3 of them for jobs of other DAGs"):
        await dispatcher.dags.CutOverDag(pb.CutOverDagRequest(deployment_id=held.deployment_id))
    await dispatcher.dags.AbortDeployment(pb.AbortDeploymentRequest(deployment_id=held.deployment_id))
    with pytest.raises(Exception, match=r"11 rows in one transaction, 3 of them for jobs of other DAGs"):
        await deploy(dispatcher, CHANGED)
    monkeypatch.setattr(stages, "MOST_SWITCHED", 11)
    await deploy(dispatcher, CHANGED)
