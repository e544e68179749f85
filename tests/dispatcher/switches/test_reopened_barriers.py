"""A pointer of another DAG moves while a build that reads it has tasks in its queue: what was passed is so no more."""

import grpc
import pytest

from dispatcher.db.pool import Pool, transaction
from dispatcher.db.rows import Connection
from dispatcher.deploy import barrier, cutover, following
from dispatcher.deploy.readiness import Waiver
from dispatcher.deploy.store import VersionRow
from kernel.errors import from_rpc_error
from tests.dispatcher.changing import Fleet, deploy, served, watch
from tests.dispatcher.in_process import InProcess
from tests.dispatcher.switches.builds import CHANGED, READER, built
from traceapi.control.v1 import dag_service_pb2 as pb
from traceapi.control.v1.deployment_pb2 import Deployment


async def _reopened(dispatcher: InProcess, fleet: Fleet) -> Deployment:
    """A build that is paused, with a live task from before in its queue, and all else done."""
    source, _ = await built(dispatcher, fleet)
    await dispatcher.deploy(READER)
    await fleet.catch_up()
    building = await deploy(dispatcher, READER.replace("splitter", "noop"), hold=True)
    await fleet.catch_up()
    await dispatcher.dags.PauseDag(pb.PauseDagRequest(dag="reader"))
    await source.publish([3])
    while await fleet.work("copies", "sums", "last"):
        pass
    before = await served(dispatcher)
    await deploy(dispatcher, CHANGED.replace("+ 1", "+ 2"))
    for _ in range(6):
        await fleet.catch_up("copies", "sums", "last")
    assert await served(dispatcher) != before
    return building


async def test_it_is_said_what_is_waited_for(dispatcher: InProcess, fleet: Fleet) -> None:
    building = await _reopened(dispatcher, fleet)
    assert (await watch(dispatcher, building)).waiting_for == "mine still to catch up"


async def test_that_halts_came_to_nothing_before_says_nothing_of_what_follows(
    dispatcher: InProcess, fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next one comes as soon as it would have after the staging."""
    follow = following.follow_pointers

    async def tried_in_vain(connection: Connection, dag: str) -> None:
        await connection.execute("update dag_version set barriers_by_itself = 9")
        await follow(connection, dag)

    monkeypatch.setattr(following, "follow_pointers", tried_in_vain)
    building = await _reopened(dispatcher, fleet)
    async with transaction(dispatcher.pool) as connection:
        reopened = await barrier.get(connection, building.deployment_id)
    assert reopened is not None
    assert (reopened.by_itself, reopened.pause(barrier.LEAST_HALT)) == (0, barrier.LEAST_HALT)


async def test_a_cutover_by_hand_takes_no_locks(
    dispatcher: InProcess, fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    building = await _reopened(dispatcher, fleet)
    tries = 0
    cut_over = cutover.cut_over

    async def counted(pool: Pool, dag_version_id: str, actor: str, waiver: Waiver) -> VersionRow | None:
        nonlocal tries
        tries += 1
        return await cut_over(pool, dag_version_id, actor, waiver)

    monkeypatch.setattr(cutover, "cut_over", counted)
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await dispatcher.dags.CutOverDag(pb.CutOverDagRequest(deployment_id=building.deployment_id))
    assert "mine still to catch up" in from_rpc_error(raised.value).message
    assert tries == 0
