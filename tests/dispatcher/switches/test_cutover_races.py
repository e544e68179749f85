"""Two connections, one of which is stopped inside its open transaction while the pipeline is switched. Each test names
the lock or guard that it stands on, and is shown to fail without it."""

import asyncio

import pytest

from dispatcher.db.pool import transaction
from dispatcher.db.rows import Connection
from dispatcher.deploy import barrier, cutover, readiness
from dispatcher.deploy.advancing import advance
from dispatcher.events import replay_rows
from dispatcher.events import store as events_store
from dispatcher.events.accept import Acceptance
from dispatcher.events.producers import lock_producers
from dispatcher.events.rows import Replay, ReplayedPage
from dispatcher.rpc import convert
from kernel.ids import new_id
from tests.dispatcher.builders import Source, Worker, artifact, at, event
from tests.dispatcher.changing import CHANGED, Fleet, deploy, missing, roll_back, served, state, watch
from tests.dispatcher.in_process import DEADLINE, InProcess
from traceapi.control.v1 import dag_service_pb2 as pb
from traceapi.worker.v1.emit_pb2 import EmitItem

pytestmark = pytest.mark.races

AHEAD = """
update watermark
set cursor_key = '\\xffffffffffffffff'
where dataset_version_id in (select dataset_version_id from pointer where dataset_id in ('copies', 'echoes'))
"""
OTHER = CHANGED.replace("+ 1", "+ 2")
STAGED_COPY = """
select t.task_id::text, o.dataset_version_id::text
from task t join job_version j using (job_version_id) join job_version_run r using (job_version_id)
join job_output o using (job_version_id)
where j.job = 'copies' and r.run_state = 'staged' and t.state = 'released'
"""
# What comes of a task that was there when the barrier was taken, and does not count for it.
UNAWAITED = """
select count(*)
from task t join job_version j using (job_version_id) join job_version_run r using (job_version_id)
where j.job = 'echo' and r.run_state = 'staged' and t.origin = 'live' and t.state = 'queued'
    and t.created_at > (select barrier_at from dag_version where state = 'building')
"""


async def _no_lock(connection: Connection, dags: set[str]) -> None:
    """Instead of `share_dags`."""


@pytest.mark.parametrize("locked", [True, False])
async def test_an_event_that_is_accepted_while_a_rollback_restores_its_consumer_reaches_it(
    dispatcher: InProcess, source: Source, monkeypatch: pytest.MonkeyPatch, locked: bool
) -> None:
    """Without its shared lock the event is numbered behind what is replayed, and was routed before the consumer was."""
    if not locked:
        monkeypatch.setattr(events_store, "share_dags", _no_lock)
    fleet = Fleet(dispatcher)
    await source.publish([1])
    await fleet.work()
    await deploy(dispatcher, CHANGED)
    await fleet.catch_up()
    acceptance, ops = Acceptance(new_id), [convert.emit(await source.item([2]), new_id).with_consumers(2)]
    async with transaction(dispatcher.pool) as connection:
        producers = await lock_producers(connection, ops)
        results = await acceptance.accept(producers, ops)
        switching = asyncio.create_task(roll_back(dispatcher))
        await dispatcher.until_waiting_or_done(switching)
        assert switching.done() is not locked
        await acceptance.publish(producers, ops, results)
    await switching
    await fleet.catch_up()
    assert await missing(dispatcher) == (0 if locked else 1)


@pytest.mark.parametrize("asked_again", [True, False])
async def test_what_is_accepted_after_a_build_was_looked_at_is_seen_by_its_cutover(
    dispatcher: InProcess, source: Source, monkeypatch: pytest.MonkeyPatch, asked_again: bool
) -> None:
    """The watermark of what is active moves between the look and the lock. Without a second look it would go back."""
    fleet = Fleet(dispatcher)
    await source.publish([1])
    await fleet.work()
    building = await deploy(dispatcher, CHANGED)
    while await dispatcher.replay():
        pass
    await fleet.work()
    find_lack = cutover.find_lack

    async def look_and_move(connection: Connection, dag_version_id: str, *, locked: bool = False) -> readiness.Lack:
        monkeypatch.setattr(cutover, "find_lack", find_lack if asked_again else pretend)
        found = await find_lack(connection, dag_version_id, locked=locked)
        await dispatcher.run(AHEAD)
        return found

    async def pretend(connection: Connection, dag_version_id: str, *, locked: bool = False) -> readiness.Lack:
        return readiness.Lack((), (), (), ())

    before = await served(dispatcher)
    monkeypatch.setattr(cutover, "find_lack", look_and_move)
    await advance(dispatcher.pool, lambda: None)
    monkeypatch.setattr(cutover, "find_lack", find_lack)
    assert (await served(dispatcher) == before) is asked_again
    assert state((await watch(dispatcher, building)).deployment) == ("building" if asked_again else "active")


async def test_of_two_deploys_that_were_written_at_once_one_is_staged(dispatcher: InProcess, source: Source) -> None:
    answers = await asyncio.gather(deploy(dispatcher, CHANGED), deploy(dispatcher, OTHER), return_exceptions=True)
    refused = [answer for answer in answers if isinstance(answer, BaseException)]
    assert len(refused) == 1
    assert "is being built" in str(refused[0])
    assert (
        await dispatcher.value("select count(*) from dag_version where staged_at is not null and state = 'building'")
        == 1
    )


async def test_of_a_cutover_and_an_abort_at_once_one_wins(dispatcher: InProcess, source: Source) -> None:
    building = await deploy(dispatcher, CHANGED, hold=True)
    over = dispatcher.dags.CutOverDag(pb.CutOverDagRequest(deployment_id=building.deployment_id))
    given_up = dispatcher.dags.AbortDeployment(pb.AbortDeploymentRequest(deployment_id=building.deployment_id))
    answers = await asyncio.gather(over, given_up, return_exceptions=True)
    assert sum(isinstance(answer, BaseException) for answer in answers) == 1
    final = state((await watch(dispatcher, building)).deployment)
    assert final == ("aborted" if isinstance(answers[0], BaseException) else "active")
    assert await dispatcher.value("select count(*) from dag where staged_version_id is not null") == 0


async def test_two_rollbacks_at_once_are_one_after_the_other(dispatcher: InProcess, source: Source) -> None:
    fleet = Fleet(dispatcher)
    await deploy(dispatcher, CHANGED)
    await fleet.catch_up()
    answers = await asyncio.gather(*(roll_back(dispatcher, to=1) for _ in range(3)))
    assert {answer.deployment.version for answer in answers} == {1}
    assert await dispatcher.value("select count(*) from activation") == 3
    assert await dispatcher.value("select deploy_number from deploy_counter") == 3


async def test_who_gives_a_build_up_does_not_wait_for_its_replay(
    dispatcher: InProcess, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While it waits nothing is accepted. A page has locked what no switch writes, until it has made its tasks."""
    await source.publish([1, 2])
    fleet = Fleet(dispatcher)
    await fleet.work()
    building = await deploy(dispatcher, CHANGED)
    note = replay_rows.note_replay

    async def abort_first(connection: Connection, replay: Replay, page: ReplayedPage | None) -> None:
        monkeypatch.setattr(replay_rows, "note_replay", note)
        async with asyncio.timeout(DEADLINE):
            await dispatcher.dags.AbortDeployment(pb.AbortDeploymentRequest(deployment_id=building.deployment_id))
        await note(connection, replay, page)

    monkeypatch.setattr(replay_rows, "note_replay", abort_first)
    assert await dispatcher.replay()
    assert state((await watch(dispatcher, building)).deployment) == "aborted"
    await source.publish([3])
    again = await deploy(dispatcher, CHANGED)
    await fleet.catch_up()
    assert state((await watch(dispatcher, again)).deployment) == "active"
    assert await missing(dispatcher) == 0


@pytest.mark.parametrize("locked", [True, False])
async def test_what_is_accepted_while_a_barrier_is_taken_is_on_one_side_of_it(
    dispatcher: InProcess, source: Source, monkeypatch: pytest.MonkeyPatch, locked: bool
) -> None:
    """Without its shared lock acceptance judges by the barrier before, and what comes of a task from before the new one
    is waited for by nobody."""
    if not locked:
        monkeypatch.setattr(events_store, "share_dags", _no_lock)
    fleet, worker = Fleet(dispatcher), Worker(dispatcher)
    await source.publish([1])
    await fleet.work()
    building = await deploy(dispatcher, CHANGED)
    while await dispatcher.replay():
        pass
    await fleet.work()
    await barrier.note_passed(dispatcher.pool, building.deployment_id)
    await source.publish([2])
    await dispatcher.release()
    ((task_id, version),) = await dispatcher.rows(STAGED_COPY)
    file = await artifact(dispatcher, "copies", at(2), key=f"data/{version}/{new_id()}-1-0.parquet")
    lease = worker.lease(await worker.claim_one(task_id))
    item = EmitItem(tasks=[lease], artifacts=[file], events=[event("copies", at(2), artifact=0)])
    acceptance, ops = Acceptance(new_id), [convert.emit(item, new_id).with_consumers(1)]
    async with transaction(dispatcher.pool) as connection:
        producers = await lock_producers(connection, ops)
        taker = barrier.Taker("chain", building.deployment_id, "user:tester")
        taking = asyncio.create_task(barrier.take(dispatcher.pool, taker, cutover.HALT))
        await dispatcher.until_waiting_or_done(taking)
        assert taking.done() is not locked
        results = await acceptance.accept(producers, ops)
        await acceptance.publish(producers, ops, results)
    assert await taking
    assert await dispatcher.value(UNAWAITED) == (0 if locked else 1)
