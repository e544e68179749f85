"""Whose hold of releases it is: one build's is no other one's."""

import pytest

from dispatcher.db.rows import Connection
from dispatcher.deploy import cutover, readiness
from dispatcher.deploy.advancing import advance
from tests.dispatcher.builders import Source
from tests.dispatcher.changing import CHANGED, Fleet, deploy, state, watch
from tests.dispatcher.in_process import InProcess
from tests.dispatcher.switches.builds import HELD
from traceapi.control.v1 import dag_service_pb2 as pb

OTHER = CHANGED.replace("+ 1", "+ 2")


async def test_a_hold_for_a_build_that_was_given_up_holds_nothing_for_the_next_one(
    dispatcher: InProcess, source: Source, fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is given up between the look at it and the hold, and another one is begun."""
    await source.publish([1])
    await fleet.work()
    given_up = await deploy(dispatcher, CHANGED)
    look = cutover.look

    async def look_and_replace(connection: Connection, dag_version_id: str, *, locked: bool = False) -> readiness.Lack:
        monkeypatch.setattr(cutover, "look", look)
        abort = pb.AbortDeploymentRequest(deployment_id=given_up.deployment_id)
        await dispatcher.dags.AbortDeployment(abort)
        await deploy(dispatcher, OTHER)
        return readiness.Lack((), (), ("copies",), (), working=True)

    monkeypatch.setattr(cutover, "look", look_and_replace)
    await advance(dispatcher.pool, lambda: None)
    assert state((await watch(dispatcher, given_up)).deployment) == "aborted"
    assert not await dispatcher.value(HELD)
