"""A DAG of which more has to be stopped than one transaction may write ends in pages: the first one decides."""

from collections.abc import Callable

import grpc
import pytest

from dispatcher.db.pool import Pool
from dispatcher.deploy import deploying, removing, stages
from dispatcher.deploy.advancing import advance
from dispatcher.deploy.building import Build, write_version
from dispatcher.deploy.versions import Identities
from kernel.errors import from_rpc_error
from tests.dispatcher.builders import Source, Worker, at, event, start_source, verdict
from tests.dispatcher.changing import CHANGED, PIPELINE, Fleet, deploy, missing, run_states, served, state
from tests.dispatcher.in_process import InProcess
from traceapi.control.v1 import change_pb2
from traceapi.control.v1 import dag_service_pb2 as pb
from traceapi.worker.v1.emit_pb2 import EmitItem

# It claims a dataset that only it has.
BUILT = CHANGED + "  more: {operator: splitter, inputs: {blocks: {}}, outputs: {more: {storage: none}}}\n"
READER = "dag: reader\njobs:\n  mine: {operator: splitter, inputs: {blocks: {}}, outputs: {mine: {storage: none}}}\n"
OPEN = """
select count(*) from subscription s join job_version j using (job_version_id) where j.dag = %s and s.to_number is null
"""
ENDING = "select ending from dag where dag = 'chain'"


def _small(monkeypatch: pytest.MonkeyPatch, rows: int = 2) -> None:
    """A job with its one input fits in."""
    monkeypatch.setattr(stages, "MOST_SWITCHED", rows)


async def _remove(dispatcher: InProcess, dag: str = "chain") -> list[str]:
    request = pb.RemoveDagRequest(dag=dag, despite_readers=True)
    return list((await dispatcher.dags.RemoveDag(request)).reader_dags)


async def _begun(dispatcher: InProcess) -> Source:
    await dispatcher.deploy(PIPELINE)
    source = await start_source(dispatcher)
    await source.publish([1])
    await Fleet(dispatcher).work()
    return source


async def test_it_ends_with_the_build_that_it_gives_up(dispatcher: InProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    await _begun(dispatcher)
    await deploy(dispatcher, BUILT, hold=True)
    _small(monkeypatch)
    await _remove(dispatcher)
    assert {one for states in (await run_states(dispatcher)).values() for one in states} == {"retired"}
    assert await dispatcher.value(OPEN, "chain") == 0
    assert await dispatcher.value(ENDING) is False
    assert "more" not in [row[0] for row in await dispatcher.rows("select dataset_id from dataset")]
    changes = await dispatcher.dags.ListDagChanges(change_pb2.ListDagChangesRequest(dag="chain"))
    assert [change.action for change in changes.changes].count(change_pb2.AUDIT_ACTION_REMOVE) == 1


async def test_no_transaction_of_it_writes_more_than_a_page(
    dispatcher: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    await _begun(dispatcher)
    _small(monkeypatch)
    await _remove(dispatcher)
    written = await dispatcher.rows("select count(*) from job_version_run group by xmin::text")
    assert {count for (count,) in written} == {1}


async def _die_after_the_first_page(dispatcher: InProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    """The call is answered by nobody."""
    page = removing._page

    async def die(pool: Pool, dag: str) -> bool:
        monkeypatch.setattr(removing, "_page", page)
        raise ConnectionError("the dispatcher is gone")

    monkeypatch.setattr(removing, "_page", die)
    with pytest.raises(grpc.aio.AioRpcError):
        await _remove(dispatcher)
    states = {one for states in (await run_states(dispatcher)).values() for one in states}
    assert {"retired"} < states, "some are stopped, and some are not"


async def _run_states_of(dispatcher: InProcess, deployment_id: str) -> set[str]:
    found = await dispatcher.rows(
        "select distinct r.run_state::text from dag_version_job s join job_version_run r using (job_version_id)"
        " where s.dag_version_id = %s",
        deployment_id,
    )
    return {run_state for (run_state,) in found}


async def test_who_dies_between_two_pages_has_removed_it_and_a_duty_goes_on(
    dispatcher: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = await _begun(dispatcher)
    await source.publish([2])
    worker = Worker(dispatcher)
    await dispatcher.release()
    claimed = await worker.claim_one(await dispatcher.task_of("chain", "copies", 2))
    _small(monkeypatch)
    await _die_after_the_first_page(dispatcher, monkeypatch)
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await dispatcher.dags.GetDag(pb.GetDagRequest(dag="chain"))
    assert from_rpc_error(raised.value).reason_name == "DAG_NOT_ACTIVE"
    assert not await dispatcher.release(), "nothing of a removed DAG is handed out"
    await advance(dispatcher.pool, lambda: None)
    assert await dispatcher.value(ENDING) is False
    assert {one for states in (await run_states(dispatcher)).values() for one in states} == {"retired"}
    (emitted,) = await worker.emit(EmitItem(tasks=[worker.lease(claimed)], events=[event("copies", at(2))]))
    assert verdict(emitted) == "TASK_CANCELED"


async def test_a_deploy_ends_what_was_left_and_begins_anew(
    dispatcher: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    await _begun(dispatcher)
    before = await served(dispatcher)
    _small(monkeypatch)
    await _die_after_the_first_page(dispatcher, monkeypatch)
    monkeypatch.undo()
    assert state(await deploy(dispatcher, PIPELINE)) == "active"
    assert await served(dispatcher) == before
    assert {one for states in (await run_states(dispatcher)).values() for one in states} == {"running"}
    await dispatcher.expire()
    source = await start_source(dispatcher)
    source.version = 1
    await source.publish([2])
    await Fleet(dispatcher).catch_up()
    assert await missing(dispatcher) == 0


async def test_what_is_deployed_while_a_removal_ends_runs(
    dispatcher: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a removed DAG two deploys are written; one is staged, and the DAG removed again with it, before the other."""
    await _begun(dispatcher)
    await _remove(dispatcher)

    async def overtaken(pool: Pool, build: Build, new_id: Callable[[], str]) -> Identities:
        monkeypatch.setattr(deploying, "write_version", write_version)
        await deploy(dispatcher, CHANGED, hold=True)
        with monkeypatch.context() as small:
            _small(small)
            await _die_after_the_first_page(dispatcher, small)
        return await write_version(pool, build, new_id)

    monkeypatch.setattr(deploying, "write_version", overtaken)
    deployed = await deploy(dispatcher, PIPELINE)
    await advance(dispatcher.pool, lambda: None)
    assert await dispatcher.value(ENDING) is False
    assert await _run_states_of(dispatcher, deployed.deployment_id) == {"running"}


async def test_of_a_dag_that_is_active_again_nothing_is_ended(dispatcher: InProcess) -> None:
    await _begun(dispatcher)
    await dispatcher.run("update dag set ending = true")
    await advance(dispatcher.pool, lambda: None)
    assert await dispatcher.value(ENDING) is False
    assert {one for states in (await run_states(dispatcher)).values() for one in states} == {"running"}


async def test_what_others_bring_makes_no_tasks_of_it_from_then_on(
    dispatcher: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its subscriptions end where their heads are under the locks of those who write there."""
    source = await _begun(dispatcher)
    await dispatcher.deploy(READER)
    _small(monkeypatch, 1)
    assert not await _remove(dispatcher, "reader")
    assert await dispatcher.value(OPEN, "reader") == 0
    await source.publish([2])
    jobs = "select j.dag from any_task t join job_version j using (job_version_id) where t.origin = 'live'"
    assert {dag for (dag,) in await dispatcher.rows(jobs)} == {"chain"}
    assert await _remove(dispatcher) == []
