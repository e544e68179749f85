"""A cutover that the dispatcher tries by itself and cannot do is on record, as one that a person is refused."""

from pathlib import Path

import pytest
import pytest_asyncio

from dispatcher.db.pool import transaction
from dispatcher.deploy import stages
from dispatcher.deploy.advancing import advance
from tests.dispatcher.builders import start_source
from tests.dispatcher.changing import CHANGED, PIPELINE, Fleet, deploy, state, watch
from tests.dispatcher.commands import command_line
from tests.dispatcher.in_process import InProcess
from traceapi.control.v1 import change_pb2
from traceapi.control.v1.deployment_pb2 import Deployment

FAILED = "select count(*) from audit where outcome = 'refused'"


@pytest_asyncio.fixture
async def built(dispatcher: InProcess) -> Deployment:
    """It lacks nothing, and would take over at the next look."""
    await dispatcher.deploy(PIPELINE)
    fleet = Fleet(dispatcher)
    await (await start_source(dispatcher)).publish([1])
    await fleet.work()
    building = await deploy(dispatcher, CHANGED)
    while await dispatcher.replay():
        pass
    await fleet.work()
    await dispatcher.derive()
    return building


async def _newest(dispatcher: InProcess) -> change_pb2.DagChange:
    return (await dispatcher.dags.ListDagChanges(change_pb2.ListDagChangesRequest(dag="chain"))).changes[0]


async def test_a_cutover_that_the_dispatcher_tried_in_vain_is_on_record_once_a_minute(
    dispatcher: InProcess, built: Deployment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    most = stages.MOST_SWITCHED
    monkeypatch.setattr(stages, "MOST_SWITCHED", 1)
    for _ in range(3):
        await advance(dispatcher.pool, lambda: None)
    assert await dispatcher.value(FAILED) == 1
    newest = await _newest(dispatcher)
    assert (newest.action, newest.outcome) == (change_pb2.AUDIT_ACTION_CUT_OVER, change_pb2.AUDIT_OUTCOME_REFUSED)
    assert (newest.reason, newest.actor, newest.to_version) == ("TOO_MANY_ROWS", "user:tester", 2)
    assert newest.note.startswith("by itself; switching takes 8 rows")
    listed = (await command_line(dispatcher, tmp_path)("dag", "history", "chain")).stdout
    assert "TOO_MANY_ROWS" in listed
    assert "by itself; switching takes" in listed
    monkeypatch.setattr(stages, "MOST_SWITCHED", most)
    await advance(dispatcher.pool, lambda: None)
    assert (await _newest(dispatcher)).outcome == change_pb2.AUDIT_OUTCOME_DONE


async def test_so_is_one_that_the_database_did_not_let_be_done(dispatcher: InProcess, built: Deployment) -> None:
    """Somebody holds the DAG's row for longer than anyone waits."""
    async with transaction(dispatcher.pool) as connection:
        await connection.execute("select 1 from dag where dag = 'chain' for update")
        await advance(dispatcher.pool, lambda: None)
    newest = await _newest(dispatcher)
    assert (newest.outcome, newest.reason) == (change_pb2.AUDIT_OUTCOME_REFUSED, "UNAVAILABLE")
    assert newest.note == "by itself; canceling statement due to lock timeout"
    await advance(dispatcher.pool, lambda: None)
    assert state((await watch(dispatcher, built)).deployment) == "active"


async def test_a_build_that_has_yet_to_catch_up_is_not_tried(dispatcher: InProcess, built: Deployment) -> None:
    await dispatcher.run("update task set state = 'queued', finished_at = null where origin = 'replay'")
    await dispatcher.run("update dag_version set barrier_passed_at = null")
    for _ in range(3):
        await advance(dispatcher.pool, lambda: None)
    assert state((await watch(dispatcher, built)).deployment) == "building"
    assert await dispatcher.value(FAILED) == 0
