"""What the audit says of holds is what was held, and what is held does not take over by itself."""

import pytest

from dispatcher.db.rows import Connection
from dispatcher.deploy import stages, store
from dispatcher.deploy.stages import Standing
from tests.dispatcher.builders import Source
from tests.dispatcher.changing import CHANGED, Fleet, deploy, state
from tests.dispatcher.in_process import InProcess

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
