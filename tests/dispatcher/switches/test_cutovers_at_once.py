"""Several people ask for the same cutover: they wait for one barrier, and none ends what another one waits for."""

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import pytest
import pytest_asyncio
from psycopg.errors import LockNotAvailable

from dispatcher.db.rows import Connection
from dispatcher.deploy import cutover, halting, progress
from kernel.channels import aio_channel
from kernel.errors import from_rpc_error
from tests.dispatcher.builders import Source
from tests.dispatcher.changing import Fleet, served, state
from tests.dispatcher.commands import command_line, words
from tests.dispatcher.in_process import DEADLINE, USER, InProcess
from tests.dispatcher.switches.builds import CHANGED, HALTED, built, work_one_of_staged
from traceapi.control.v1 import change_pb2
from traceapi.control.v1 import dag_service_pb2 as pb
from traceapi.control.v1.dag_service_pb2_grpc import DagServiceStub
from traceapi.control.v1.deployment_pb2 import Deployment

if TYPE_CHECKING:
    from traceapi.control.v1.dag_service_pb2_grpc import DagServiceAsyncStub

WAITING = "select count(*) from dag cross join lateral jsonb_object_keys(releases_held_by) where dag = 'chain'"
BARRIER = "select barrier_at from dag_version where dag_version_id = %s"
REFUSED = "select actor, reason, to_version, details ->> 'message' from audit where outcome = 'refused'"
RECORDED = "select action, actor, outcome::text, to_version from audit order by audit_id"
LEFT = "whoever asked did not wait for it; releases of what is active were halted meanwhile"
Call = asyncio.Task[pb.CutOverDagResponse]


@pytest_asyncio.fixture
async def fed(dispatcher: InProcess, fleet: Fleet) -> tuple[Source, Deployment]:
    """What `building` is, with its source."""
    source, building = await built(dispatcher, fleet, hold=True)
    await source.publish([3])
    await fleet.work("copies")
    return source, building


@pytest.fixture
def building(fed: tuple[Source, Deployment]) -> Deployment:
    """It waits for a person, and has something in work that came after its staging."""
    return fed[1]


async def _call(dispatcher: InProcess, building: Deployment, *, waiting: int, actor: str = "tester") -> Call:
    """Asks for it, and returns when so many wait for it."""

    async def asked() -> pb.CutOverDagResponse:
        async with aio_channel(dispatcher.addresses["control"], token=USER, actor_name=actor) as channel:
            stub: DagServiceAsyncStub = DagServiceStub(channel)
            return await stub.CutOverDag(pb.CutOverDagRequest(deployment_id=building.deployment_id))

    call = asyncio.create_task(asked())
    await _until(dispatcher, waiting, call)
    return call


async def _until(dispatcher: InProcess, waiting: int, *calls: Call) -> None:
    async with asyncio.timeout(DEADLINE):
        while await dispatcher.value(WAITING) != waiting:
            for call in calls:
                assert not call.done(), call.result()


async def test_a_second_call_waits_for_the_same_barrier_and_has_the_same_answer(
    dispatcher: InProcess, fleet: Fleet, building: Deployment
) -> None:
    before = await served(dispatcher)
    first = await _call(dispatcher, building, waiting=1)
    barrier = await dispatcher.value(BARRIER, building.deployment_id)
    second = await _call(dispatcher, building, waiting=2)
    assert await dispatcher.value(BARRIER, building.deployment_id) == barrier
    await fleet.work("sums", "last")
    answers = [await first, await second]
    assert [state(answer.deployment) for answer in answers] == ["active", "active"]
    assert await served(dispatcher) != before
    assert await dispatcher.value("select count(*) from audit where action = 'cut_over'") == 1, "it happened once"


async def test_each_call_is_on_record_with_what_it_halted_and_with_its_answer(
    dispatcher: InProcess, fleet: Fleet, building: Deployment, tmp_path: Path
) -> None:
    """Who stops what is active is on record from that moment on; of two the cutover is one's, and the other's too."""
    plan_id = (await dispatcher.dags.PlanDag(pb.PlanDagRequest(document=pb.DagDocument(text=CHANGED)))).plan_id
    await dispatcher.run("update dag_version set plan_id = %s where version = 2", plan_id)
    calls = [await _call(dispatcher, building, waiting=1)]
    assert (await dispatcher.rows(RECORDED))[-1] == ("halt", "user:tester", "done", 2)
    calls.append(await _call(dispatcher, building, waiting=2, actor="another"))
    await fleet.work("sums", "last")
    await asyncio.gather(*calls)
    history = (await dispatcher.dags.ListDagChanges(change_pb2.ListDagChangesRequest(dag="chain"))).changes
    joined, made, *halts = history[:4]
    assert [(*words(change), change.actor) for change in reversed(halts)] == [
        ("halt", 0, 2, "user:tester"),
        ("halt", 0, 2, "user:another"),
    ]
    assert {change.note for change in halts} == {"releases of what is active, for 30 s at most"}
    assert [words(change) for change in (made, joined)] == [("cut_over", 1, 2), ("join_cut_over", 0, 2)]
    assert {made.actor, joined.actor} == {"user:tester", "user:another"}
    assert made.note == joined.note == "deploy number 2"
    assert {change.outcome for change in history} == {change_pb2.AUDIT_OUTCOME_DONE}
    assert {change.plan_id for change in history[:4]} == {plan_id}
    listed = (await command_line(dispatcher, tmp_path)("dag", "history", "chain")).stdout
    for part in ("halt", "releases of what is active, for 30 s at most", "cutover, joined", "user:another"):
        assert part in listed


async def test_a_call_that_is_repeated_is_on_record_once(
    dispatcher: InProcess, fleet: Fleet, building: Deployment
) -> None:
    call = await _call(dispatcher, building, waiting=1)
    await fleet.work("sums", "last")
    first = await call
    recorded = await dispatcher.rows(RECORDED)
    again = await dispatcher.dags.CutOverDag(pb.CutOverDagRequest(deployment_id=building.deployment_id))
    assert again == first
    assert await dispatcher.rows(RECORDED) == recorded


async def test_a_call_that_is_given_up_leaves_the_halt_of_another_one(
    dispatcher: InProcess, fleet: Fleet, building: Deployment
) -> None:
    first = await _call(dispatcher, building, waiting=1)
    second = await _call(dispatcher, building, waiting=2)
    first.cancel()
    await _until(dispatcher, 1, second)
    assert await dispatcher.value(HALTED)
    third = await _call(dispatcher, building, waiting=2)
    second.cancel()
    third.cancel()
    await _until(dispatcher, 0)
    assert not await dispatcher.value(HALTED)


async def test_a_call_that_is_given_up_is_on_record(dispatcher: InProcess, building: Deployment) -> None:
    """It has halted what is active."""
    call = await _call(dispatcher, building, waiting=1)
    call.cancel()
    async with asyncio.timeout(DEADLINE):
        while not (newest := await dispatcher.rows(REFUSED)):
            pass
    assert newest == [("user:tester", "NOT_CAUGHT_UP", 2, LEFT)]


async def test_a_call_whose_barrier_is_good_no_more_takes_another_one(
    dispatcher: InProcess, fleet: Fleet, fed: tuple[Source, Deployment]
) -> None:
    """Its halt was ended, such as by a clock that was set, and what is active goes on."""
    source, building = fed
    call = await _call(dispatcher, building, waiting=1)
    before = await dispatcher.value(BARRIER, building.deployment_id)
    await source.publish([4], watermark=False)
    await fleet.work("copies")
    await dispatcher.run("update dag set releases_held_until = clock_timestamp() - interval '1 s'")
    for job in ("sums", "last"):
        await work_one_of_staged(dispatcher, fleet, job)
    async with asyncio.timeout(DEADLINE):
        while await dispatcher.value(BARRIER, building.deployment_id) == before:
            assert not call.done()
    assert await dispatcher.value(HALTED)
    await fleet.work()
    assert state((await call).deployment) == "active"


async def test_a_call_that_has_cut_over_says_so_though_a_halt_cannot_be_ended(
    dispatcher: InProcess, fleet: Fleet, building: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def locked(connection: Connection, dag_version_id: str, halter: str) -> None:
        raise LockNotAvailable("somebody has the DAG's row")

    monkeypatch.setattr(halting, "end_halt", locked)
    call = await _call(dispatcher, building, waiting=1)
    await fleet.work("sums", "last")
    assert state((await call).deployment) == "active"


async def test_a_call_that_is_refused_says_why_though_its_halt_cannot_be_ended(
    dispatcher: InProcess, fleet: Fleet, building: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def locked(connection: Connection, dag_version_id: str, halter: str) -> None:
        raise LockNotAvailable("somebody has the DAG's row")

    monkeypatch.setattr(halting, "end_halt", locked)
    monkeypatch.setattr(cutover, "HALT", timedelta(seconds=0.2))
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await dispatcher.dags.CutOverDag(pb.CutOverDagRequest(deployment_id=building.deployment_id))
    assert from_rpc_error(raised.value).reason_name == "NOT_CAUGHT_UP"


async def test_who_looks_at_the_moment_at_which_it_is_given_up_hears_of_that(
    dispatcher: InProcess, fleet: Fleet, building: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its jobs are looked at before, and its barrier after that: so they seem to be far from done."""
    call = await _call(dispatcher, building, waiting=1)
    right = progress.staged_watermarks

    async def given_up(connection: Connection, dag_version_id: str) -> list[progress.StagedWatermarkRow]:
        monkeypatch.setattr(progress, "staged_watermarks", right)
        await dispatcher.dags.AbortDeployment(pb.AbortDeploymentRequest(deployment_id=dag_version_id))
        return await right(connection, dag_version_id)

    monkeypatch.setattr(progress, "staged_watermarks", given_up)
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call
    assert from_rpc_error(raised.value).reason_name == "DEPLOYMENT_FINAL"


async def test_who_waits_for_what_is_given_up_hears_of_it(
    dispatcher: InProcess, fleet: Fleet, building: Deployment
) -> None:
    calls = [await _call(dispatcher, building, waiting=number) for number in (1, 2)]
    await dispatcher.dags.AbortDeployment(pb.AbortDeploymentRequest(deployment_id=building.deployment_id))
    for answer in await asyncio.gather(*calls, return_exceptions=True):
        assert isinstance(answer, grpc.aio.AioRpcError)
        error = from_rpc_error(answer)
        assert (error.reason_name, error.message) == (
            "DEPLOYMENT_FINAL",
            "version 2 of chain is aborted, not being built",
        )
