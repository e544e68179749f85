"""What reaches a dataset version holds it, and with it what was written together with it."""

from collections.abc import AsyncIterator
from dataclasses import replace as changed
from datetime import timedelta
from pathlib import Path

import pytest_asyncio

from dispatcher.collecting.collector import Collector
from dispatcher.collecting.reach import Hold
from dispatcher.db.pool import Pool
from kernel.ids import new_id
from tests.dispatcher.builders import READER, start_source
from tests.dispatcher.giving_up import NO_GRACE, GivenUp, age, collector, fill, remove_all, replace
from tests.dispatcher.in_process import InProcess, in_process_dispatcher
from traceapi.control.v1 import dag_service_pb2 as dag_pb
from traceapi.control.v1 import dataset_service_pb2 as dataset_pb
from traceapi.control.v1 import retention_service_pb2 as pb
from traceapi.types.v1 import dataset_pb2

SHARED = """\
dag: shared
jobs:
  blocks:
    source: replay
    config: {path: /data/blocks.csv, cursor: number}
    outputs: {blocks: {cursor: {column: number, type: int64}, schema: {number: int64}}}
  left: {operator: splitter, inputs: {blocks: {}}, outputs: {parts: {storage: none, writers: many}}}
  right: {operator: splitter, inputs: {blocks: {}}, outputs: {parts: {storage: none, writers: many}}}
  other: {operator: splitter, inputs: {blocks: {}}, outputs: {more: {storage: none}}}
"""
BUILDING = """
insert into dag_version (dag_version_id, dag, version, spec, spec_digest, state, actor)
select gen_random_uuid(), dag, 99, spec, spec_digest, 'building', actor from dag_version limit 1
"""


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


async def _holds(of: Collector, former: GivenUp) -> dict[str, Hold | None]:
    """What a condemnation of everything meets, by dataset."""
    verdicts = await of.condemn(former.ids, "user:tester")
    return {dataset: verdicts[version_id].hold for dataset, version_id in former.versions.items()}


async def test_what_is_served_is_held(dispatcher: InProcess) -> None:
    await fill(dispatcher, [1])
    await age(dispatcher, 90)
    served = await dispatcher.rows("select dataset_version_id::text from pointer")
    verdicts = await collector(dispatcher).condemn([row[0] for row in served], "user:tester")
    assert {verdict.hold for verdict in verdicts.values()} == {Hold.SERVED}


async def test_the_rollback_window_holds(dispatcher: InProcess, former: GivenUp) -> None:
    for retention in (changed(NO_GRACE, rollback_versions=1), changed(NO_GRACE, rollback_age=timedelta(days=91))):
        of = collector(dispatcher, retention)
        assert set((await _holds(of, former)).values()) == {Hold.ROLLBACK}
        assert (await of.unused_versions(None, None, 100)).versions == []


async def test_what_has_just_left_its_pointer_is_held(dispatcher: InProcess) -> None:
    await fill(dispatcher, [1])
    former = await replace(dispatcher, days_ago=0)
    assert set((await _holds(collector(dispatcher), former)).values()) == {Hold.RECENT}


async def test_a_pin_holds_until_it_expires(dispatcher: InProcess, former: GivenUp) -> None:
    pin = await _pin(dispatcher, former, "blocks")
    holds = await _holds(collector(dispatcher), former)
    assert holds == {"blocks": Hold.PINNED, "copies": None, "ranges": None}
    await dispatcher.run("update pin set expires_at = clock_timestamp() where pin_id = %s", pin.pin.pin_id)
    assert set((await _holds(collector(dispatcher), former)).values()) == {None}
    await remove_all(collector(dispatcher))
    assert await former.left(dispatcher) == {}


async def test_a_task_holds_what_it_reads(dispatcher: InProcess, former: GivenUp) -> None:
    """A reader in another DAG, which follows the pointer now: one of its tasks had begun to read the former version."""
    await dispatcher.deploy(READER)
    await (await start_source(dispatcher)).publish([1])
    pins = f'[{{"dataset_id": "blocks", "version": "{former.versions["blocks"]}", "number": 1}}]'
    echo = "select t.task_id from task t join job_version j using (job_version_id) where j.dag = 'reader'"
    await dispatcher.run(f"update task set pins = %s where task_id in ({echo})", pins)  # noqa: S608
    assert (await _holds(collector(dispatcher), former))["blocks"] is Hold.READ
    await dispatcher.run(
        "update task set state = 'canceled', reason = 'x', finished_at = now() where job_version_id ="
        " (select job_version_id from job_version where dag = 'reader')"
    )
    assert (await _holds(collector(dispatcher), former))["blocks"] is None


SUBSCRIBE = """
insert into subscription (job_version_id, input_version_id, from_number, to_number, replayed)
select job_version_id, %s, 1, %s, false from job_version where dag = 'reader'
"""


async def test_a_reader_that_is_owed_events_holds_them(dispatcher: InProcess, former: GivenUp) -> None:
    await dispatcher.deploy(READER)
    blocks = former.versions["blocks"]
    await dispatcher.run(SUBSCRIBE, blocks, None)
    assert (await _holds(collector(dispatcher), former))["blocks"] is Hold.READ
    while await dispatcher.replay():
        assert (await _holds(collector(dispatcher), former))["blocks"] is Hold.READ
    await dispatcher.run(
        "update subscription set to_number = 1 where input_version_id = %s and from_number = 1", blocks
    )
    assert (await _holds(collector(dispatcher), former))["blocks"] is Hold.READ, "its tasks were caused by it"
    await dispatcher.run("update job_version_run set run_state = 'retired'")
    assert (await _holds(collector(dispatcher), former))["blocks"] is None


async def test_what_a_reader_was_still_owed_of_what_is_not_served_any_more_holds_nothing(
    dispatcher: InProcess, former: GivenUp
) -> None:
    await dispatcher.deploy(READER)
    await dispatcher.run(SUBSCRIBE, former.versions["blocks"], 1)
    while await dispatcher.replay():
        pass
    assert (await _holds(collector(dispatcher), former))["blocks"] is None


async def test_what_another_dag_is_bound_to_is_held(dispatcher: InProcess, former: GivenUp) -> None:
    await dispatcher.deploy(READER)
    bound = "update input_binding b set dataset_version_id = %s from job_version j where j.dag = 'reader'"
    await dispatcher.run(f"{bound} and j.job_version_id = b.job_version_id", former.versions["blocks"])
    assert (await _holds(collector(dispatcher), former))["blocks"] is Hold.SERVED


async def test_a_deploy_that_is_being_written_holds_all_of_its_dag(dispatcher: InProcess, former: GivenUp) -> None:
    await dispatcher.run(BUILDING)
    assert set((await _holds(collector(dispatcher), former)).values()) == {Hold.DEPLOYING}


async def test_what_is_written_together_goes_together(dispatcher: InProcess) -> None:
    """A query reads `more`, which `right` has written too, which has written `parts` together with `left`."""
    await dispatcher.deploy(SHARED)
    await dispatcher.run(
        "insert into job_output select j.job_version_id, p.dataset_version_id from job_version j, pointer p"
        " where j.job = 'right' and p.dataset_id = 'more'"
    )
    former = await replace(dispatcher, SHARED.replace("/data/blocks.csv", "/data/other.csv"))
    await _pin(dispatcher, former, "more")
    assert set(await _unused(dispatcher)) == {"blocks"}
    holds = await _holds(collector(dispatcher), former)
    assert holds == {"blocks": None, "more": Hold.PINNED, "parts": Hold.SIBLING}
    await dispatcher.run("delete from pin")
    assert await _holds(collector(dispatcher), former) == {"blocks": None, "more": None, "parts": None}
    await remove_all(collector(dispatcher))
    assert await former.left(dispatcher) == {}


async def test_a_build_that_its_deploy_abandoned_is_in_nobodys_way(dispatcher: InProcess, former: GivenUp) -> None:
    """It is older than any deploy takes. Were one still at it, it would find it gone and begin anew."""
    await dispatcher.run(BUILDING)
    await dispatcher.run(
        "insert into dag_version_dataset select v.dag_version_id, 'blocks', %s from dag_version v where v.version = 99",
        former.versions["blocks"],
    )
    of = collector(dispatcher)
    assert set((await _holds(of, former)).values()) == {Hold.SERVED, Hold.DEPLOYING}
    await age(dispatcher, 1)
    assert set(await _unused(dispatcher)) == {"blocks", "copies", "ranges"}
    assert set((await _holds(of, former)).values()) == {None}
    assert await dispatcher.value("select count(*) from dag_version where version = 99") == 0
    await remove_all(of)
    assert await former.left(dispatcher) == {}


async def test_what_a_readers_results_were_built_on_is_held(dispatcher: InProcess) -> None:
    """It follows the pointer; until its own next deploy its results are flagged with what they were built on."""
    await fill(dispatcher, [1, 2])
    await dispatcher.deploy(READER)
    former = await replace(dispatcher)
    assert (await _holds(collector(dispatcher), former))["blocks"] is Hold.SERVED
    await dispatcher.dags.RemoveDag(dag_pb.RemoveDagRequest(dag="reader"))
    await dispatcher.run("update dag set removed_at = removed_at - interval '2 hours'")
    assert (await _holds(collector(dispatcher), former))["blocks"] is None
    await remove_all(collector(dispatcher))
    assert await former.left(dispatcher) == {}


async def _pin(dispatcher: InProcess, former: GivenUp, dataset: str) -> dataset_pb.PinDatasetsResponse:
    """The former version's state."""
    pin = dataset_pb2.Pin(pin_id=new_id(), deploy_number=1)
    pin.datasets.add(dataset_id=dataset, dataset_version_id=former.versions[dataset], publication_number=1)
    return await dispatcher.datasets.PinDatasets(dataset_pb.PinDatasetsRequest(names=[dataset], pin=pin))
