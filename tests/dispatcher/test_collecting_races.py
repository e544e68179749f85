"""The collector against those who are about to need what it takes: two connections, one stopped in the middle.

Each test takes its guard out, too, and then finds what must never be: a version that is condemned and in use.
"""

import asyncio
from collections.abc import AsyncIterator, Collection
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio

from dispatcher.collecting import condemning, reach, store
from dispatcher.datasets import store as datasets_store
from dispatcher.db.pool import Pool, transaction
from dispatcher.db.rows import Connection
from dispatcher.deploy import building, stages
from dispatcher.deploy import store as deploy_store
from dispatcher.deploy.cutover import activate, switch_jobs
from kernel.call_metadata import AIO_INTERCEPTORS, CallMetadata
from kernel.errors import from_rpc_error
from kernel.ids import new_id
from tests.dispatcher.builders import CHAIN
from tests.dispatcher.changing import roll_back
from tests.dispatcher.giving_up import NO_GRACE, GivenUp, collector, fill, replace
from tests.dispatcher.in_process import DEADLINE, USER, InProcess, in_process_dispatcher
from traceapi.control.v1 import dag_service_pb2 as dag_pb
from traceapi.control.v1 import dataset_service_pb2 as dataset_pb
from traceapi.control.v1.dag_service_pb2_grpc import DagServiceStub
from traceapi.types.v1 import dataset_pb2

pytestmark = pytest.mark.races

PINNED_AND_CONDEMNED = """
select count(*)
from pin p join pin_dataset d using (pin_id) join dataset_version v using (dataset_version_id)
where p.expires_at > clock_timestamp() and v.condemned_at is not null
"""
SERVED_AND_CONDEMNED = """
select count(*)
from dag d
join dag_version_dataset s on s.dag_version_id in (d.active_version_id, d.staged_version_id)
join dataset_version v using (dataset_version_id)
where v.condemned_at is not null
"""


@pytest_asyncio.fixture
async def dispatcher(pool: Pool, tmp_path: Path) -> AsyncIterator[InProcess]:
    async with in_process_dispatcher(pool, tmp_path / "artifacts", rollback_versions=0, rollback_days=0.0) as running:
        yield running


@pytest_asyncio.fixture
async def former(dispatcher: InProcess) -> GivenUp:
    await fill(dispatcher, [1, 2])
    return await replace(dispatcher)


async def _nothing(connection: Connection, version_ids: Collection[str]) -> None:
    """Instead of a lock."""


async def _condemn(dispatcher: InProcess, former: GivenUp) -> str:
    """What becomes of `blocks`."""
    verdicts = await collector(dispatcher).condemn(former.ids, "user:tester")
    verdict = verdicts[former.versions["blocks"]]
    return str(verdict.hold or verdict.outcome)


async def _condemn_openly(connection: Connection, former: GivenUp) -> None:
    """All steps of the transaction but its commit."""
    found = reach.groups(await store.outputs(connection, former.ids))
    await condemning._condemn_groups(connection, NO_GRACE, found, "user:tester")


def _pin(former: GivenUp) -> dataset_pb.PinDatasetsRequest:
    """The former version's state, as an earlier answer had it."""
    pin = dataset_pb2.Pin(pin_id=new_id(), deploy_number=1)
    pin.datasets.add(dataset_id="blocks", dataset_version_id=former.versions["blocks"], publication_number=1)
    return dataset_pb.PinDatasetsRequest(names=["blocks"], pin=pin)


async def _pinned(dispatcher: InProcess, former: GivenUp) -> str:
    """`pinned`, or the reason of the refusal."""
    try:
        await dispatcher.datasets.PinDatasets(_pin(former))
    except grpc.aio.AioRpcError as error:
        return from_rpc_error(error).reason_name
    return "pinned"


@pytest.mark.parametrize("guarded", [True, False])
async def test_the_collector_waits_for_a_pin_and_then_stays_away(
    dispatcher: InProcess, former: GivenUp, monkeypatch: pytest.MonkeyPatch, guarded: bool
) -> None:
    """The pin is written and not committed. Its row shares the version's."""
    if not guarded:
        monkeypatch.setattr(store, "lock_versions", _nothing)
    async with transaction(dispatcher.pool) as connection:
        await _insert_pin(connection, former)
        condemned = asyncio.create_task(_condemn(dispatcher, former))
        await dispatcher.until_waiting_or_done(condemned)
        assert condemned.done() != guarded
    assert await condemned == ("pinned" if guarded else "condemned")
    assert await dispatcher.value(PINNED_AND_CONDEMNED) == (0 if guarded else 1)


@pytest.mark.parametrize("guarded", [True, False])
@pytest.mark.parametrize("committed", [True, False])
async def test_a_pin_that_comes_just_after_a_condemnation_is_refused(
    dispatcher: InProcess, former: GivenUp, monkeypatch: pytest.MonkeyPatch, guarded: bool, committed: bool
) -> None:
    """It has read the version before; when it pins, the condemnation is committed, or about to be."""
    read, go_on = asyncio.Event(), asyncio.Event()
    insert_pin = datasets_store.insert_pin

    async def stopped(*arguments: Any) -> Any:
        read.set()
        await go_on.wait()
        return await insert_pin(*arguments)

    monkeypatch.setattr(datasets_store, "insert_pin", stopped)
    if not guarded:
        text = datasets_store._sql._texts["insert_pin_datasets"]
        unguarded = text.replace("and condemned_at is null", "")
        assert unguarded != text
        monkeypatch.setitem(datasets_store._sql._texts, "insert_pin_datasets", unguarded)
    pinned = asyncio.create_task(_pinned(dispatcher, former))
    async with asyncio.timeout(DEADLINE):
        await read.wait()
    async with transaction(dispatcher.pool) as connection:
        await _condemn_openly(connection, former)
        if committed:
            await connection.commit()
        go_on.set()
        await dispatcher.until_waiting_or_done(pinned)
        assert pinned.done() == committed
    assert await pinned == ("PIN_COLLECTED" if guarded else "pinned")
    assert await dispatcher.value(PINNED_AND_CONDEMNED) == (0 if guarded else 1)


@pytest.mark.parametrize("guarded", [True, False])
async def test_the_collector_waits_for_a_pin_that_is_renewed(
    dispatcher: InProcess, former: GivenUp, monkeypatch: pytest.MonkeyPatch, guarded: bool
) -> None:
    """It would have expired by the time at which the collector looks."""
    if not guarded:
        monkeypatch.setattr(store, "lock_pins", _nothing)
    answer = await dispatcher.datasets.PinDatasets(_pin(former))
    async with transaction(dispatcher.pool) as connection:
        renewed = await datasets_store.renew_pin(connection, answer.pin.pin_id, reach.SETTLING)
        assert renewed is not None
        # As others see it until the commit, and as if its time were over: it cannot be written, since it is locked.
        monkeypatch.setitem(store._sql._texts, "judged", _judged_as_if_expired(renewed))
        condemned = asyncio.create_task(_condemn(dispatcher, former))
        await dispatcher.until_waiting_or_done(condemned)
        assert condemned.done() != guarded
    assert await condemned == ("pinned" if guarded else "condemned")
    assert await dispatcher.value(PINNED_AND_CONDEMNED) == (0 if guarded else 1)


@pytest.mark.parametrize("guarded", [True, False])
async def test_a_deploy_that_waits_for_a_condemnation_is_refused(
    dispatcher: InProcess, former: GivenUp, monkeypatch: pytest.MonkeyPatch, guarded: bool
) -> None:
    """It would take the version up again. The DAG's row makes it wait until what is condemned is seen."""
    if not guarded:
        monkeypatch.setattr(store, "own_readers", _nothing)
    async with transaction(dispatcher.pool) as connection:
        await _condemn_openly(connection, former)
        deployed = asyncio.create_task(_deployed(dispatcher))
        await dispatcher.until_waiting_or_done(deployed)
        if guarded:
            assert not deployed.done()
    assert await deployed == ("UNAVAILABLE" if guarded else "deployed")
    assert await dispatcher.value(SERVED_AND_CONDEMNED) == (0 if guarded else 3)


@pytest.mark.parametrize("guarded", [True, False])
async def test_the_collector_stays_away_from_what_a_deploy_is_taking_up(
    dispatcher: InProcess, former: GivenUp, monkeypatch: pytest.MonkeyPatch, guarded: bool
) -> None:
    """It has found the job versions, and has not named them yet."""
    if not guarded:
        text = store._sql._texts["judged"]
        unguarded = text.replace("g.state = 'building'", "g.state = 'aborted'")
        assert unguarded != text
        monkeypatch.setitem(store._sql._texts, "judged", unguarded)
    found, go_on = asyncio.Event(), asyncio.Event()
    write_jobs = building._write_jobs

    async def stopped(*arguments: Any) -> Any:
        identities = await write_jobs(*arguments)
        found.set()
        await go_on.wait()
        return identities

    monkeypatch.setattr(building, "_write_jobs", stopped)
    deployed = asyncio.create_task(_deployed(dispatcher))
    async with asyncio.timeout(DEADLINE):
        await found.wait()
    assert await _condemn(dispatcher, former) == ("deploying" if guarded else "condemned")
    go_on.set()
    assert await deployed == "deployed"
    assert await dispatcher.value(SERVED_AND_CONDEMNED) == (0 if guarded else 3)


async def test_a_deploy_that_found_something_condemned_finds_it_refused_by_its_own_statement(
    dispatcher: InProcess, former: GivenUp, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the look at what is condemned, it would serve what goes."""
    assert await _condemn(dispatcher, former) == "condemned"
    text = deploy_store._sql._texts["stored_jobs"]
    unguarded = text.replace("v.condemned_at is not null", "false")
    assert unguarded != text
    monkeypatch.setitem(deploy_store._sql._texts, "stored_jobs", unguarded)
    assert await _deployed(dispatcher) == "deployed"
    assert await dispatcher.value(SERVED_AND_CONDEMNED) == 3


@pytest.mark.parametrize("guarded", [True, False])
async def test_a_rollback_that_waits_for_a_condemnation_is_refused(
    dispatcher: InProcess, former: GivenUp, monkeypatch: pytest.MonkeyPatch, guarded: bool
) -> None:
    """It would restore what goes. The DAG's row makes it wait before it looks; its other rows, after that."""
    if not guarded:
        monkeypatch.setattr(store, "own_readers", _nothing)
        monkeypatch.setattr(store, "retire_jobs", _retire_nothing)
    async with transaction(dispatcher.pool) as connection:
        await _condemn_openly(connection, former)
        restored = asyncio.create_task(_rolled_back(dispatcher))
        await dispatcher.until_waiting_or_done(restored)
        assert not restored.done()
    assert await restored == ("DEPLOYMENT_FINAL" if guarded else "restored")
    assert await dispatcher.value(SERVED_AND_CONDEMNED) == (0 if guarded else 3)


async def test_the_collector_that_waits_for_a_rollback_stays_away(dispatcher: InProcess, former: GivenUp) -> None:
    async with transaction(dispatcher.pool) as connection:
        standing = await stages.own(connection, "chain")
        first = await connection.execute("select dag_version_id::text from dag_version where version = 1")
        ((target,),) = await first.fetchall()
        await switch_jobs(connection, standing, target, left="rolled_back", actor="user:tester")
        await activate(connection, standing, target, left="rolled_back")
        condemned = asyncio.create_task(_condemn(dispatcher, former))
        await dispatcher.until_waiting_or_done(condemned)
        assert not condemned.done()
    assert await condemned == "served"


async def _rolled_back(dispatcher: InProcess) -> str:
    """`restored`, or the reason of the refusal."""
    try:
        await roll_back(dispatcher, to=1)
    except grpc.aio.AioRpcError as error:
        return from_rpc_error(error).reason_name
    return "restored"


async def _retire_nothing(connection: Connection, job_version_ids: Collection[str], actor: str) -> None:
    """Instead of another lock, on the rows of the job versions."""


async def _deployed(dispatcher: InProcess) -> str:
    """`deployed`, or the reason of the refusal, by a client that does not repeat the call."""
    metadata = CallMetadata(USER, "tester")
    async with grpc.aio.insecure_channel(
        dispatcher.addresses["control"],
        [("grpc.enable_retries", 0)],
        interceptors=[make(metadata) for make in AIO_INTERCEPTORS],
    ) as channel:
        document = dag_pb.DagDocument(text=CHAIN, file_name="dag.yaml")
        try:
            await DagServiceStub(channel).DeployDag(dag_pb.DeployDagRequest(document=document, request_id=new_id()))
        except grpc.aio.AioRpcError as error:
            return from_rpc_error(error).reason_name
    return "deployed"


async def _insert_pin(connection: Connection, former: GivenUp) -> None:
    pins = [("blocks", former.versions["blocks"], 1)]
    await datasets_store.insert_pin(connection, new_id(), "user:tester", 1, reach.SETTLING, pins)


def _judged_as_if_expired(renewed: object) -> str:
    text = store._sql._texts["judged"]
    changed = text.replace("p.expires_at > clock_timestamp()", f"p.expires_at >= '{renewed}'")
    assert changed != text
    return changed
