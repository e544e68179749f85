"""Dataset versions go when a person says so: whole, in pages, and never while anything reaches them."""

import asyncio
import re
import uuid
from collections.abc import AsyncIterator
from dataclasses import replace as changed
from datetime import timedelta
from pathlib import Path

import grpc
import pytest
import pytest_asyncio

from dispatcher.collecting import removal
from dispatcher.collecting.collector import ACTOR, Collector, Duties
from dispatcher.collecting.condemning import Outcome, Verdict
from dispatcher.collecting.reach import Hold
from dispatcher.collecting.removal import Remover
from dispatcher.db.pool import Pool
from kernel.artifacts import open_store
from kernel.errors import from_rpc_error
from kernel.ids import new_id
from tests.dispatcher.builders import CHAIN, reason_of, start_source
from tests.dispatcher.changing import CHANGED, PIPELINE, Fleet, deploy, roll_back, served
from tests.dispatcher.giving_up import NO_GRACE, GivenUp, age, collector, fill, remove_all, replace, switch
from tests.dispatcher.in_process import InProcess, in_process_dispatcher
from tests.dispatcher.refusals import refusal
from tests.s3_server import S3Server
from traceapi.control.v1 import dag_service_pb2 as dag_pb
from traceapi.control.v1 import dataset_service_pb2 as dataset_pb
from traceapi.control.v1 import retention_service_pb2 as pb
from traceapi.types.v1 import dataset_pb2


@pytest_asyncio.fixture
async def dispatcher(pool: Pool, tmp_path: Path) -> AsyncIterator[InProcess]:
    """Its rollback window is empty, so that what was replaced is given up at once."""
    async with in_process_dispatcher(pool, tmp_path / "artifacts", rollback_versions=0, rollback_days=0.0) as running:
        yield running


@pytest_asyncio.fixture
async def former(dispatcher: InProcess) -> GivenUp:
    """The former version of `chain`, with three blocks and two copies; nothing reaches it."""
    await fill(dispatcher, [1, 2, 3])
    return await replace(dispatcher)


async def _unused(dispatcher: InProcess, dag: str = "") -> dict[str, pb.UnusedVersion]:
    """By dataset."""
    answer = await dispatcher.retention.ListUnusedVersions(pb.ListUnusedVersionsRequest(dag=dag))
    return {version.dataset_id: version for version in answer.versions}


async def test_a_dry_run_tells_what_could_go(dispatcher: InProcess, former: GivenUp) -> None:
    found = await _unused(dispatcher)
    assert {dataset: version.dataset_version_id for dataset, version in found.items()} == former.versions
    copies = found["copies"]
    assert (copies.dag, copies.file_count, copies.row_count, copies.event_count) == ("chain", 2, 2, 2)
    assert copies.size_bytes == 32
    assert found["ranges"].file_count == 0
    assert not copies.HasField("condemned_time")
    assert await _unused(dispatcher, "chain") == found
    assert await refusal(_unused(dispatcher, "chains")) == "DAG_NOT_FOUND"
    assert await dispatcher.value("select count(*) from dataset_version where condemned_at is not null") == 0


async def test_what_is_served_is_not_told(dispatcher: InProcess) -> None:
    await fill(dispatcher, [1])
    await age(dispatcher, 90)
    assert await _unused(dispatcher) == {}


async def test_pages_tell_the_same(dispatcher: InProcess, former: GivenUp) -> None:
    seen, token = [], ""
    for _ in range(10):
        request = pb.ListUnusedVersionsRequest(page_size=1, page_token=token)
        answer = await dispatcher.retention.ListUnusedVersions(request)
        seen += [version.dataset_version_id for version in answer.versions]
        token = answer.next_page_token
        if not token:
            break
    assert seen == former.ids


async def test_versions_go_with_all_that_is_theirs_and_nothing_else(dispatcher: InProcess, former: GivenUp) -> None:
    source = await start_source(dispatcher)
    await source.publish([7, 8])
    await dispatcher.keep()  # some of the tasks are finished, and elsewhere
    version = former.versions["copies"]
    dispatcher.store.put_bytes(f"data/{version}/{uuid.uuid4()}-1-0.parquet", b"that no row names")
    others = await _others(dispatcher)
    assert (await former.left(dispatcher))["file"] == 4
    answer = await dispatcher.retention.CollectVersions(pb.CollectVersionsRequest(dataset_version_ids=former.ids))
    assert [result.outcome for result in answer.results] == [pb.COLLECT_OUTCOME_CONDEMNED] * 3
    assert (answer.removed_version_count, answer.left_version_count) == (3, 0)
    assert answer.removed_file_count == 4
    assert answer.removed_row_count > 20
    assert await former.left(dispatcher) == {}
    assert await _others(dispatcher) == others
    assert await _unused(dispatcher) == {}


async def test_files_go_from_s3_too(dispatcher: InProcess, former: GivenUp, s3: S3Server) -> None:
    of_s3 = open_store(s3.url(new_id()))
    for found in list(dispatcher.store.list("data/")):
        of_s3.put_bytes(found.key, b"x")
    unnamed = f"data/{former.versions['copies']}/{uuid.uuid4()}-1-0.parquet"
    kept = f"data/{uuid.uuid4()}/{uuid.uuid4()}-1-0.parquet"
    for key in (unnamed, kept):
        of_s3.put_bytes(key, b"x")
    of = Collector(dispatcher.pool, of_s3, NO_GRACE)
    await of.condemn(former.ids, "user:tester")
    await remove_all(of)
    assert [found.key for found in of_s3.list("")] == [kept]


async def test_a_repeated_call_finds_nothing_left_to_do(dispatcher: InProcess, former: GivenUp) -> None:
    request = pb.CollectVersionsRequest(dataset_version_ids=former.ids)
    for outcome in (pb.COLLECT_OUTCOME_CONDEMNED, pb.COLLECT_OUTCOME_GONE):
        answer = await dispatcher.retention.CollectVersions(request)
        assert [result.outcome for result in answer.results] == [outcome] * 3
    assert answer.removed_row_count == answer.removed_file_count == answer.left_version_count == 0


async def test_who_gave_what_up_is_on_record(dispatcher: InProcess, former: GivenUp) -> None:
    await dispatcher.retention.CollectVersions(pb.CollectVersionsRequest(dataset_version_ids=former.ids))
    recorded = await dispatcher.rows(
        "select actor, subject, details ->> 'outcome' from audit where method = 'RetentionService.CollectVersions'"
        " order by audit_id"
    )
    assert recorded[0] == ("user:tester", "chain", "condemned")
    assert sorted(recorded[1:]) == [("user:tester", dataset, "removed") for dataset in ("blocks", "copies", "ranges")]


async def test_no_transaction_takes_more_than_a_page(
    dispatcher: InProcess, former: GivenUp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(removal, "PAGE_ROWS", 5)
    monkeypatch.setattr(removal, "PAGE_FILES", 1)
    of = collector(dispatcher)
    await of.condemn(former.ids, "user:tester")
    remover = Remover(of.pool, of.artifacts)
    steps = []
    while step := await remover.step(ACTOR):
        steps.append(step)
    assert len(steps) > 12
    assert max(step.rows for step in steps) <= 5
    assert max(step.files for step in steps) == 1
    assert await former.left(dispatcher) == {}


@pytest.mark.races
async def test_two_dispatchers_at_once_remove_everything_once(
    dispatcher: InProcess, former: GivenUp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(removal, "PAGE_ROWS", 4)
    of = collector(dispatcher)
    await of.condemn(former.ids, "user:tester")
    await asyncio.gather(*(remove_all(of) for _ in range(3)))
    await remove_all(of)
    assert await former.left(dispatcher) == {}
    outcome = "select count(*) from audit where details ->> 'outcome' = 'removed'"
    assert await dispatcher.value(outcome) == 3


async def test_the_duty_goes_on_with_what_was_condemned(dispatcher: InProcess, former: GivenUp) -> None:
    of = collector(dispatcher)
    duties = Duties(of, timedelta(0))
    assert await duties.remove() == 0
    await of.condemn(former.ids, "user:tester")
    while await duties.remove():
        pass
    assert await former.left(dispatcher) == {}
    removed_by = "select distinct actor from audit where details ->> 'outcome' = 'removed'"
    assert await dispatcher.rows(removed_by) == [("dispatcher",)]


async def test_of_all_dispatchers_one_sweeps_and_only_when_it_is_due(dispatcher: InProcess, former: GivenUp) -> None:
    lost = f"data/{former.versions['blocks']}/{uuid.uuid4()}-1-0.parquet"
    of = collector(dispatcher, changed(NO_GRACE, orphan_grace=-timedelta(days=1)))
    first, second, never = Duties(of, timedelta(days=1)), Duties(of, timedelta(days=1)), Duties(of, timedelta(0))
    dispatcher.store.put_bytes(lost, b"x")
    assert await never.sweep() == 0
    assert await first.sweep() == 1
    assert await second.sweep() == 0
    assert dispatcher.store.stat(lost, digest=False) is None
    while await first.sweep():
        pass
    assert await first.sweep() == 0
    await dispatcher.run("update orphan_sweep set begun_at = begun_at - interval '2 days'")
    assert await second.sweep() == 1


async def test_a_pin_of_what_is_collected_is_told(dispatcher: InProcess, former: GivenUp) -> None:
    given = (await _pin(dispatcher, former, "blocks")).pin
    await dispatcher.datasets.ReleasePin(dataset_pb.ReleasePinRequest(pin_id=given.pin_id))
    again = dataset_pb.PinDatasetsRequest(names=["blocks"], pin=given)
    by_number = dataset_pb.PinDatasetsRequest(names=["blocks"], deploy_number=1)
    for request in (again, by_number):
        await dispatcher.datasets.PinDatasets(request)
    await dispatcher.run("delete from pin")
    of = collector(dispatcher)
    await of.condemn(former.ids, "user:tester")
    for _ in range(2):
        for request in (again, by_number):
            assert await refusal(dispatcher.datasets.PinDatasets(request)) == "PIN_COLLECTED"
        assert await _resolved(dispatcher, given.datasets[0]) == "PIN_COLLECTED"
        await remove_all(of)


async def test_a_deploy_does_not_take_up_what_is_being_collected(dispatcher: InProcess, former: GivenUp) -> None:
    of = collector(dispatcher)
    await of.condemn(former.ids, "user:tester")
    request = dag_pb.DeployDagRequest(
        document=dag_pb.DagDocument(text=CHAIN, file_name="dag.yaml"), request_id=new_id()
    )
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await dispatcher.dags.DeployDag(request)
    error = from_rpc_error(raised.value)
    assert error.reason_name == "UNAVAILABLE"
    assert re.search(r"blocks, copies, ranges .* is being collected.*tracectl gc --versions", error.message)
    assert error.retry_after
    await remove_all(of)
    await switch(dispatcher, CHAIN)
    rebuilt = await dispatcher.rows("select dataset_id, dataset_version_id::text from pointer")
    assert {version for _, version in rebuilt} & set(former.ids) == set()
    assert len(rebuilt) == 3


async def test_what_was_built_on_a_version_that_went_is_built_anew(dispatcher: InProcess) -> None:
    """Taken up again, it would get the same scopes once more, from what takes the place of what went."""
    await dispatcher.deploy(PIPELINE)
    source, fleet = await start_source(dispatcher), Fleet(dispatcher)
    await source.publish([1, 2, 3])
    await fleet.work()
    former = await served(dispatcher)
    await deploy(dispatcher, CHANGED)
    await fleet.catch_up()
    await age(dispatcher, 90)
    verdicts = await collector(dispatcher).condemn([former["copies"]], "user:tester")
    assert verdicts[former["copies"]].outcome is Outcome.CONDEMNED
    await remove_all(collector(dispatcher))
    await deploy(dispatcher, PIPELINE)
    await fleet.catch_up()
    restored = await served(dispatcher)
    assert {name for name, version in restored.items() if former[name] != version} == {"copies", "echoes"}
    scopes = "select count(*), count(distinct scope_first) from event where dataset_version_id = %s"
    assert await dispatcher.rows(scopes, restored["echoes"]) == [(3, 3)]


async def test_nothing_of_a_condemned_version_runs_again(dispatcher: InProcess, former: GivenUp) -> None:
    await dispatcher.run(
        "update job_version_run set run_state = 'running' where job_version_id in"
        " (select job_version_id from job_output where dataset_version_id = %s)",
        former.versions["blocks"],
    )
    epochs = "select distinct epoch from job_version_run where job_version_id = any(%s::uuid[])"
    before = await dispatcher.value(epochs, former.jobs)
    await collector(dispatcher).condemn(former.ids, "user:tester")
    states = "select distinct run_state::text, epoch from job_version_run where job_version_id = any(%s::uuid[])"
    assert await dispatcher.rows(states, former.jobs) == [("retired", before + 1)]


async def test_a_dag_version_that_lost_something_is_told_from_the_others(
    dispatcher: InProcess, former: GivenUp
) -> None:
    """It is what a rollback asks."""
    lost = "select g.version from collected_dag_version c join dag_version g using (dag_version_id)"
    assert await dispatcher.rows(lost) == []
    of = collector(dispatcher)
    await of.condemn([former.versions["copies"]], "user:tester")
    assert await dispatcher.rows(lost) == [(1,)]
    await remove_all(of)
    assert await dispatcher.rows(lost) == [(1,)]


async def test_no_rollback_restores_what_is_collected(dispatcher: InProcess, former: GivenUp) -> None:
    of = collector(dispatcher)
    await of.condemn([former.versions["copies"]], "user:tester")
    for _ in range(2):
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await roll_back(dispatcher)
        error = from_rpc_error(raised.value)
        assert error.reason_name == "DEPLOYMENT_FINAL"
        assert "collected: deploy its document again" in error.message
        await remove_all(of)


async def test_what_a_removed_dag_served_can_be_collected_and_its_names_are_free_then(dispatcher: InProcess) -> None:
    await fill(dispatcher, [1, 2])
    await age(dispatcher, 90)
    await dispatcher.dags.RemoveDag(dag_pb.RemoveDagRequest(dag="chain"))
    served = dict(await dispatcher.rows("select dataset_id, dataset_version_id::text from pointer"))
    of = collector(dispatcher)
    assert {verdict.hold for verdict in (await of.condemn(list(served.values()), "user:tester")).values()} == {
        Hold.RECENT
    }
    await dispatcher.run("update dag set removed_at = removed_at - interval '2 hours'")
    within = collector(dispatcher, changed(NO_GRACE, rollback_age=timedelta(days=1), rollback_versions=0))
    assert set((await within.condemn(list(served.values()), "user:tester")).values()) == {
        Verdict(Outcome.HELD, Hold.ROLLBACK)
    }
    of = collector(dispatcher, changed(NO_GRACE, rollback_versions=9))
    assert {version.of.dataset_id for version in (await of.unused_versions("chain", None, 9)).versions} == set(served)
    await of.condemn(list(served.values()), "user:tester")
    names = dataset_pb.PinDatasetsRequest(names=["copies"])
    assert await refusal(dispatcher.datasets.PinDatasets(names)) == "DATASET_NOT_FOUND"
    await remove_all(of)
    assert await dispatcher.rows("select dataset_id from dataset") == []
    await dispatcher.deploy(CHAIN.replace("dag: chain", "dag: another"))


async def test_a_version_that_nobody_knows_is_gone(dispatcher: InProcess, former: GivenUp) -> None:
    unknown = str(uuid.uuid4())
    verdicts = await collector(dispatcher).condemn([unknown], "user:tester")
    assert verdicts[unknown].outcome is Outcome.GONE


async def _pin(dispatcher: InProcess, former: GivenUp, dataset: str) -> dataset_pb.PinDatasetsResponse:
    """The former version's state."""
    pin = dataset_pb2.Pin(pin_id=new_id(), deploy_number=1)
    pin.datasets.add(dataset_id=dataset, dataset_version_id=former.versions[dataset], publication_number=1)
    return await dispatcher.datasets.PinDatasets(dataset_pb.PinDatasetsRequest(names=[dataset], pin=pin))


async def _resolved(dispatcher: InProcess, pin: dataset_pb2.DatasetPin) -> str:
    """The reason of a refusal."""
    request = dataset_pb.ResolveDatasetsRequest(items=[dataset_pb.ResolveItem(pin=pin)])
    (page,) = [page async for page in dispatcher.datasets.ResolveDatasets(request)]
    return reason_of(page.error)


async def _others(dispatcher: InProcess) -> dict[str, int]:
    """What there is of the version that is served."""
    served = await dispatcher.rows("select dataset_id, dataset_version_id::text from pointer")
    jobs = await dispatcher.rows(
        "select s.job_version_id::text from dag d join dag_version_job s on s.dag_version_id = d.active_version_id"
    )
    tasks = await dispatcher.rows(
        "select task_id::text from any_task where job_version_id = any(%s::uuid[])", [job for (job,) in jobs]
    )
    now = GivenUp(dict(served), [job for (job,) in jobs], [task for (task,) in tasks])
    return await now.left(dispatcher)
