"""What the audit says of holds is what was held, and what is held does not take over by itself."""

import pytest

from dispatcher.db.rows import Connection
from dispatcher.deploy import barrier, cutover, stages, store
from dispatcher.deploy.advancing import advance
from dispatcher.deploy.stages import Standing
from tests.dispatcher.builders import Source
from tests.dispatcher.changing import CHANGED, Fleet, deploy, state
from tests.dispatcher.commands import words
from tests.dispatcher.in_process import InProcess
from tests.dispatcher.switches.builds import HELD, built
from traceapi.control.v1 import change_pb2
from traceapi.control.v1 import dag_service_pb2 as pb

OF_VERSION_2 = "select action from audit where to_version = 2 order by audit_id"


async def _recorded(dispatcher: InProcess) -> list[str]:
    return [action for (action,) in await dispatcher.rows(OF_VERSION_2)]


async def _built(dispatcher: InProcess, source: Source, fleet: Fleet) -> None:
    """A change that may take over as soon as somebody looks."""
    await source.publish([1])
    await fleet.work()
    await deploy(dispatcher, CHANGED)
    while await dispatcher.replay():
        pass
    await fleet.work()


async def test_a_hold_is_recorded_once(dispatcher: InProcess, source: Source) -> None:
    await source.publish([1])
    for hold in (False, True, True):
        await deploy(dispatcher, CHANGED, hold=hold)
    assert await _recorded(dispatcher) == ["deploy", "hold"]


async def test_what_is_deployed_held_is_not_held_again(dispatcher: InProcess, source: Source) -> None:
    await source.publish([1])
    for _ in range(2):
        await deploy(dispatcher, CHANGED, hold=True)
    assert await _recorded(dispatcher) == ["deploy"]


async def test_releases_that_are_held_by_itself_are_on_record_for_whoever_deployed(
    dispatcher: InProcess, fleet: Fleet
) -> None:
    """What is active stands still meanwhile, and nobody asked at that moment."""
    source, _ = await built(dispatcher, fleet)
    await source.publish([3])
    await fleet.work("copies")
    await advance(dispatcher.pool, lambda: None)
    assert await dispatcher.value(HELD)
    newest = (await dispatcher.dags.ListDagChanges(change_pb2.ListDagChangesRequest(dag="chain"))).changes[0]
    assert (words(newest), newest.actor) == (("halt", 0, 2), "user:tester")
    assert newest.note == "by itself; releases of what is active, for 30 s at most"
    await advance(dispatcher.pool, lambda: None)
    assert await _recorded(dispatcher) == ["deploy", "halt"]


async def test_of_releases_that_were_not_held_nothing_is_on_record(dispatcher: InProcess, fleet: Fleet) -> None:
    """It is given up before a call that finds a barrier holds them too."""
    _, building = await built(dispatcher, fleet)
    taker = barrier.Taker("chain", building.deployment_id, "user:tester", "a call")
    await dispatcher.dags.AbortDeployment(pb.AbortDeploymentRequest(deployment_id=building.deployment_id))
    await barrier.take_for(dispatcher.pool, taker, cutover.HELD_RELEASES)
    assert await _recorded(dispatcher) == ["deploy"]


async def test_a_hold_that_comes_after_the_cutover_is_none(
    dispatcher: InProcess, source: Source, fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes over between the look at it and the lock."""
    await _built(dispatcher, source, fleet)
    right = store.own_dag

    async def late(connection: Connection, dag: str) -> None:
        monkeypatch.setattr(store, "own_dag", right)
        await fleet.catch_up()
        await right(connection, dag)

    monkeypatch.setattr(store, "own_dag", late)
    assert state(await deploy(dispatcher, CHANGED, hold=True)) == "active"
    assert await _recorded(dispatcher) == ["deploy", "cut_over"]


async def test_a_cutover_that_comes_after_the_hold_is_none(
    dispatcher: InProcess, source: Source, fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is held between the look at it and the lock."""
    await _built(dispatcher, source, fleet)
    right = stages.own_versions

    async def late(connection: Connection, dag: str) -> Standing:
        monkeypatch.setattr(stages, "own_versions", right)
        await deploy(dispatcher, CHANGED, hold=True)
        return await right(connection, dag)

    monkeypatch.setattr(stages, "own_versions", late)
    await fleet.catch_up()
    assert await _recorded(dispatcher) == ["deploy", "hold"]
    assert await dispatcher.value("select state::text from dag_version where version = 2") == "building"
