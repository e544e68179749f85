"""Where switches of a pipeline meet their edges: sources, removed DAGs, builds given up, builds that fail."""

import pytest

from dispatcher.db.rows import Connection
from dispatcher.deploy import cutover, readiness
from dispatcher.deploy.advancing import advance
from kernel.errors import TraceError
from tests.dispatcher.builders import Source, start_source
from tests.dispatcher.changing import (
    CHANGED,
    PIPELINE,
    Fleet,
    deploy,
    roll_back,
    run_states,
    served,
    state,
    watch,
)
from tests.dispatcher.in_process import InProcess
from traceapi.control.v1 import dag_service_pb2 as pb
from traceapi.types.v1.errors_pb2 import ErrorReason

OTHER_SOURCE = PIPELINE.replace("/data/blocks.csv", "/data/other.csv")
READER = """\
dag: reader
jobs:
  mine: {operator: splitter, inputs: {copies: {}}, outputs: {mine: {storage: none}}}
"""
SOURCE_RUNS = """
select r.run_state::text, count(*)
from task t join job_version_run r using (job_version_id)
where t.origin = 'source_run' group by 1 order by 1
"""


async def test_a_source_has_one_run_however_often_its_version_comes_back(
    dispatcher: InProcess, source: Source, fleet: Fleet
) -> None:
    await source.publish([1])
    await fleet.work()
    building = await deploy(dispatcher, OTHER_SOURCE)
    call = pb.CutOverDagRequest(deployment_id=building.deployment_id, watermarks_may_go_back=True)
    await dispatcher.dags.CutOverDag(call)
    for expected in (1, 2, 1):
        assert (await roll_back(dispatcher)).deployment.version == expected
        assert await dispatcher.rows(SOURCE_RUNS) == [("rolled_back", 1), ("running", 1)]


async def test_a_removed_reader_follows_nothing_and_goes_on_once_it_is_deployed_again(
    dispatcher: InProcess, source: Source, fleet: Fleet
) -> None:
    await source.publish([1])
    await fleet.work()
    await dispatcher.deploy(READER)
    await fleet.catch_up()
    await dispatcher.dags.RemoveDag(pb.RemoveDagRequest(dag="reader"))
    await deploy(dispatcher, CHANGED)
    await fleet.catch_up()
    await roll_back(dispatcher)
    await source.publish([2])
    await fleet.work()
    open_ones = (
        "select count(*) from subscription s join job_version j using (job_version_id)"
        " where j.dag = 'reader' and s.to_number is null"
    )
    assert await dispatcher.value(open_ones) == 0
    await dispatcher.deploy(READER)
    assert await dispatcher.value(open_ones) == 1
    await source.publish([3])
    await fleet.catch_up()
    read = await dispatcher.rows(
        "select t.scope_first from any_task t join job_version j using (job_version_id)"
        " where j.dag = 'reader' order by 1"
    )
    assert [int.from_bytes(key, "big") - 2**63 for (key,) in read] == [1, 2, 3]
    await dispatcher.dags.RemoveDag(pb.RemoveDagRequest(dag="reader"))
    assert not (await dispatcher.dags.RemoveDag(pb.RemoveDagRequest(dag="chain"))).reader_dags


async def test_a_removed_dag_that_is_deployed_changed_is_built_before_anybody_reads_it(
    dispatcher: InProcess, source: Source, fleet: Fleet
) -> None:
    """What it served last is read meanwhile; the jobs that both versions have go on at once."""
    await source.publish([1, 2])
    await fleet.work()
    await dispatcher.deploy(READER)
    await fleet.catch_up()
    before = await served(dispatcher)
    await dispatcher.dags.RemoveDag(pb.RemoveDagRequest(dag="chain", despite_readers=True))
    building = await deploy(dispatcher, CHANGED)
    assert state(building) == "building"
    assert await served(dispatcher) == before
    now = await watch(dispatcher, building)
    assert now.waiting_for == "copies still to catch up"
    await dispatcher.expire()
    again = await start_source(dispatcher)
    again.version = source.version
    await again.publish([3])
    assert await served(dispatcher) == before
    await fleet.catch_up()
    assert state((await watch(dispatcher, building)).deployment) == "active"
    after = await served(dispatcher)
    assert {dataset for dataset in after if after[dataset] != before[dataset]} == {"copies", "echoes"}
    for dataset in ("copies", "echoes", "parts"):
        made = await dispatcher.value("select count(*) from event where dataset_version_id = %s", after[dataset])
        assert made == 3, dataset
    assert await run_states(dispatcher) == {
        "apart": ["running"],
        "blocks": ["running"],
        "copies": ["retired", "running"],
        "echo": ["retired", "running"],
    }
    await fleet.catch_up()
    read = (
        "select array_agg(t.scope_first order by t.scope_first) from any_task t"
        " join job_version j using (job_version_id) where j.dag = 'reader'"
    )
    assert [int.from_bytes(key, "big") - 2**63 for key in await dispatcher.value(read)] == [1, 2, 3]


async def test_a_removed_dag_whose_build_is_given_up_stays_removed(
    dispatcher: InProcess, source: Source, fleet: Fleet
) -> None:
    await source.publish([1])
    await fleet.work()
    before = await served(dispatcher)
    await dispatcher.dags.RemoveDag(pb.RemoveDagRequest(dag="chain"))
    building = await deploy(dispatcher, CHANGED)
    await dispatcher.dags.AbortDeployment(pb.AbortDeploymentRequest(deployment_id=building.deployment_id))
    assert await served(dispatcher) == before
    assert {one for states in (await run_states(dispatcher)).values() for one in states} == {"retired"}
    assert await dispatcher.value("select count(*) from subscription where to_number is null") == 0


async def test_a_rollback_does_not_take_from_others_what_they_read(
    dispatcher: InProcess, source: Source, fleet: Fleet
) -> None:
    await deploy(
        dispatcher, PIPELINE + "  more: {operator: splitter, inputs: {blocks: {}}, outputs: {more: {storage: none}}}\n"
    )
    await fleet.catch_up()
    await dispatcher.deploy(READER.replace("copies", "more"))
    before = await served(dispatcher)
    with pytest.raises(Exception, match="has no more, which DAG reader reads"):
        await roll_back(dispatcher)
    assert await served(dispatcher) == before


async def test_a_build_that_is_given_up_while_it_is_looked_at_stays_so(
    dispatcher: InProcess, source: Source, fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = await deploy(dispatcher, CHANGED, hold=True)
    find_lack = cutover.find_lack

    async def look_and_abort(connection: Connection, dag_version_id: str) -> readiness.Lack:
        found = await find_lack(connection, dag_version_id)
        await dispatcher.dags.AbortDeployment(pb.AbortDeploymentRequest(deployment_id=held.deployment_id))
        return found

    monkeypatch.setattr(cutover, "find_lack", look_and_abort)
    await advance(dispatcher.pool, lambda: None)
    assert state((await watch(dispatcher, held)).deployment) == "aborted"


async def test_a_build_can_be_held_after_it_was_begun(dispatcher: InProcess, source: Source, fleet: Fleet) -> None:
    await source.publish([1])
    await fleet.work()
    building = await deploy(dispatcher, CHANGED)
    assert (await deploy(dispatcher, CHANGED, hold=True)).deployment_id == building.deployment_id
    await fleet.catch_up()
    assert state((await watch(dispatcher, building)).deployment) == "held"


ADDED = CHANGED + "  more: {operator: splitter, inputs: {blocks: {}}, outputs: {more: {storage: none}}}\n"


async def test_a_job_that_only_the_staged_version_has_is_paused_and_resumed(
    dispatcher: InProcess, source: Source, fleet: Fleet
) -> None:
    await source.publish([1])
    await fleet.work()
    building = await deploy(dispatcher, ADDED)
    paused = await dispatcher.dags.PauseDag(pb.PauseDagRequest(dag="chain", jobs=["more"]))
    assert list(paused.paused_jobs) == ["more"]
    await fleet.catch_up()
    assert (await watch(dispatcher, building)).waiting_for == "more still to catch up"
    assert not (await dispatcher.dags.ResumeDag(pb.ResumeDagRequest(dag="chain", jobs=["more"]))).paused_jobs
    await fleet.catch_up()
    assert state((await watch(dispatcher, building)).deployment) == "active"


async def test_a_dag_that_is_only_being_built_is_paused(dispatcher: InProcess, source: Source, fleet: Fleet) -> None:
    await deploy(dispatcher, READER, hold=True)
    paused = await dispatcher.dags.PauseDag(pb.PauseDagRequest(dag="reader"))
    assert list(paused.paused_jobs) == ["mine"]


async def test_a_dag_of_which_nothing_was_ever_active_is_ended(
    dispatcher: InProcess, source: Source, fleet: Fleet
) -> None:
    held = await deploy(dispatcher, READER, hold=True)
    await dispatcher.dags.RemoveDag(pb.RemoveDagRequest(dag="reader"))
    assert state((await watch(dispatcher, held)).deployment) == "aborted"
    assert await dispatcher.value("select count(*) from dataset where dag = 'reader'") == 0
    assert state(await deploy(dispatcher, READER)) == "active"


async def test_what_is_being_built_is_found_whatever_its_number(
    dispatcher: InProcess, source: Source, fleet: Fleet
) -> None:
    building = await deploy(dispatcher, CHANGED)
    await dispatcher.run(
        "insert into dag_version (dag_version_id, dag, version, spec, spec_digest, state, actor, staged_at)"
        " select gen_random_uuid(), dag, version + 1, spec, spec_digest, 'aborted', actor, now() from dag_version"
        " where version = 2"
    )
    call = pb.ListDagHistoryRequest(dag="chain", page_size=1, being_built=True)
    (found,) = (await dispatcher.dags.ListDagHistory(call)).deployments
    assert found.deployment_id == building.deployment_id
    await dispatcher.dags.AbortDeployment(pb.AbortDeploymentRequest(deployment_id=building.deployment_id))
    assert not (await dispatcher.dags.ListDagHistory(call)).deployments


async def test_a_version_has_caught_up_though_its_source_goes_on(
    dispatcher: InProcess, source: Source, fleet: Fleet
) -> None:
    await source.publish([1])
    await fleet.work()
    await deploy(dispatcher, CHANGED)
    await fleet.catch_up()
    await source.publish([2])
    await fleet.work()
    restored = (await roll_back(dispatcher)).deployment
    assert not (await watch(dispatcher, restored)).caught_up
    await fleet.catch_up()
    await source.publish([3])
    now = await watch(dispatcher, restored)
    assert (now.caught_up, now.settled) == (True, False)
    await dispatcher.run(
        "update task set state = 'succeeded', lease_token_digest = null, lease_until = null, finished_at = now()"
        " where origin = 'source_run'"
    )
    assert not (await watch(dispatcher, restored)).caught_up, "the source has ended, so all is waited for"


async def test_a_build_that_fails_holds_no_other_one(
    dispatcher: InProcess, source: Source, fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    await dispatcher.deploy(
        "dag: another\njobs:\n  a: {operator: splitter, inputs: {blocks: {}}, outputs: {a: {storage: none}}}\n"
    )
    bad = await deploy(
        dispatcher,
        "dag: another\njobs:\n  a: {operator: splitter, inputs: {parts: {}}, outputs: {a: {storage: none}}}\n",
    )
    good = await deploy(dispatcher, CHANGED)
    find_lack = cutover.find_lack

    async def fail(connection: Connection, dag_version_id: str, *, locked: bool = False) -> readiness.Lack:
        if dag_version_id == bad.deployment_id:
            raise TraceError(ErrorReason.ERROR_REASON_UNAVAILABLE, "it changed meanwhile")
        return await find_lack(connection, dag_version_id, locked=locked)

    monkeypatch.setattr(cutover, "find_lack", fail)
    await fleet.catch_up()
    assert state((await watch(dispatcher, good)).deployment) == "active"
