"""What was asked for and refused for what there was is on record; it fills no disk."""

import asyncio
from collections.abc import Awaitable

import grpc
import pytest
import pytest_asyncio

from dispatcher.audit import store
from dispatcher.audit.entries import Action, Refusal
from dispatcher.deploy import stages
from kernel.errors import from_rpc_error
from kernel.ids import new_id
from tests.dispatcher.builders import READER, Source, int64, start_source
from tests.dispatcher.changing import CHANGED, PIPELINE, TUNED, deploy
from tests.dispatcher.in_process import InProcess
from traceapi.control.v1 import change_pb2, retention_service_pb2, source_service_pb2, task_service_pb2
from traceapi.control.v1 import dag_service_pb2 as pb
from traceapi.types.v1.scope_pb2 import CursorRange

OWNED = READER.replace("echoes", "copies")
APART = READER.replace("echoes", "read")
# What is added cannot be replaced, so it is not run again.
ADDING = """\
dag: reader
jobs:
  added:
    operator: sql
    config: {sql: select number from blocks}
    inputs: {blocks: {}}
    outputs: {added: {update: append, unique_key: [number], schema: {number: int64}}}
"""
RECORDED = "select action, reason, actor, dags, to_version from audit where outcome = 'refused' order by audit_id"


@pytest_asyncio.fixture
async def source(dispatcher: InProcess) -> Source:
    """The pipeline is deployed, its source claimed, and three blocks are published."""
    await dispatcher.deploy(PIPELINE)
    source = await start_source(dispatcher)
    await source.publish([1, 2, 3])
    return source


async def _refused(call: Awaitable[object]) -> str:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call
    return from_rpc_error(raised.value).reason_name


async def _plan(dispatcher: InProcess, document: str) -> str:
    source = pb.DagDocument(text=document, file_name="dag.yaml")
    return (await dispatcher.dags.PlanDag(pb.PlanDagRequest(document=source))).plan_id


async def _last(dispatcher: InProcess) -> tuple[str, str, str, list[str], int | None]:
    found: tuple[str, str, str, list[str], int | None] = (await dispatcher.rows(RECORDED))[-1]
    return found


async def test_a_plan_whose_base_moved(dispatcher: InProcess, source: Source) -> None:
    planned = await _plan(dispatcher, CHANGED)
    await deploy(dispatcher, TUNED)
    request = pb.DeployDagRequest(plan_id=planned, request_id=new_id())
    assert await _refused(dispatcher.dags.DeployDag(request)) == "BASE_MOVED"
    assert await _last(dispatcher) == ("deploy", "BASE_MOVED", "user:tester", ["chain"], None)
    newest = (await dispatcher.dags.ListDagChanges(change_pb2.ListDagChangesRequest(dag="chain"))).changes[0]
    assert (newest.outcome, newest.reason) == (change_pb2.AUDIT_OUTCOME_REFUSED, "BASE_MOVED")
    assert newest.plan_id == planned
    assert "plan again" in newest.note


async def test_a_cutover_of_what_has_not_caught_up(dispatcher: InProcess, source: Source) -> None:
    held = await deploy(dispatcher, CHANGED, hold=True)
    request = pb.CutOverDagRequest(deployment_id=held.deployment_id)
    assert await _refused(dispatcher.dags.CutOverDag(request)) == "NOT_CAUGHT_UP"
    assert await _last(dispatcher) == ("cut_over", "NOT_CAUGHT_UP", "user:tester", ["chain"], 2)


async def test_an_abort_of_what_is_active(dispatcher: InProcess, source: Source) -> None:
    active = await dispatcher.value("select active_version_id::text from dag")
    request = pb.AbortDeploymentRequest(deployment_id=active)
    assert await _refused(dispatcher.dags.AbortDeployment(request)) == "DEPLOYMENT_FINAL"
    assert await _last(dispatcher) == ("abort", "DEPLOYMENT_FINAL", "user:tester", ["chain"], 1)


async def test_another_deploy_while_one_is_being_built(dispatcher: InProcess, source: Source) -> None:
    await deploy(dispatcher, CHANGED)
    assert await _refused(deploy(dispatcher, CHANGED.replace("+ 1", "+ 2"))) == "DEPLOYMENT_IN_PROGRESS"
    assert await _last(dispatcher) == ("deploy", "DEPLOYMENT_IN_PROGRESS", "user:tester", ["chain"], None)


async def test_a_dataset_of_another_dag(dispatcher: InProcess, source: Source) -> None:
    assert await _refused(_plan(dispatcher, OWNED)) == "DATASET_OWNED"
    assert await _last(dispatcher) == ("plan", "DATASET_OWNED", "user:tester", ["reader"], None)
    assert await _refused(deploy(dispatcher, OWNED)) == "DATASET_OWNED"
    assert await _last(dispatcher) == ("deploy", "DATASET_OWNED", "user:tester", ["reader"], None)


async def test_a_removal_of_what_others_read(dispatcher: InProcess, source: Source) -> None:
    await dispatcher.deploy(APART)
    assert await _refused(dispatcher.dags.RemoveDag(pb.RemoveDagRequest(dag="chain"))) == "DATASETS_READ"
    assert await _last(dispatcher) == ("remove", "DATASETS_READ", "user:tester", ["chain"], None)


async def test_a_change_of_too_many_rows(
    dispatcher: InProcess, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stages, "MOST_SWITCHED", 1)
    assert await _refused(deploy(dispatcher, CHANGED)) == "TOO_MANY_ROWS"
    assert await _last(dispatcher) == ("deploy", "TOO_MANY_ROWS", "user:tester", ["chain"], None)


async def test_a_rollback_to_what_was_collected(dispatcher: InProcess, source: Source) -> None:
    await deploy(dispatcher, TUNED)
    await dispatcher.run("update dag_version set collected_at = clock_timestamp() where version = 1")
    request = pb.RollbackDagRequest(dag="chain", to_version=1, request_id=new_id())
    assert await _refused(dispatcher.dags.RollbackDag(request)) == "DEPLOYMENT_FINAL"
    assert await _last(dispatcher) == ("roll_back", "DEPLOYMENT_FINAL", "user:tester", ["chain"], 1)


async def test_a_backfill_of_what_cannot_be_run_again(dispatcher: InProcess, source: Source) -> None:
    await dispatcher.deploy(ADDING)
    block = CursorRange(first=int64(1), last=int64(1))
    request = source_service_pb2.BackfillJobRequest(dag="reader", job="added", range=block, request_id=new_id())
    assert await _refused(dispatcher.sources.BackfillJob(request)) == "RERUN_REFUSED"
    assert await _last(dispatcher) == ("backfill", "RERUN_REFUSED", "user:tester", ["reader"], None)


async def test_a_run_again_of_a_source(dispatcher: InProcess, source: Source) -> None:
    again = task_service_pb2.RerunTasksRequest(filter=task_service_pb2.TaskFilter(job="blocks"), request_id=new_id())
    assert await _refused(dispatcher.tasks.RerunTasks(again)) == "RERUN_REFUSED"
    assert await _last(dispatcher) == ("rerun", "RERUN_REFUSED", "user:tester", ["chain"], None)


async def test_dataset_versions_that_something_holds(dispatcher: InProcess, source: Source) -> None:
    served = await dispatcher.value("select dataset_version_id::text from pointer where dataset_id = 'copies'")
    request = retention_service_pb2.CollectVersionsRequest(dataset_version_ids=[served])
    answer = await dispatcher.retention.CollectVersions(request)
    assert answer.results[0].outcome == retention_service_pb2.COLLECT_OUTCOME_HELD
    assert (await _last(dispatcher))[:4] == ("condemn", "SERVED", "user:tester", ["chain"])


async def test_what_is_malformed_or_names_nothing_is_not_recorded(dispatcher: InProcess, source: Source) -> None:
    before = await dispatcher.value("select count(*) from audit")
    assert await _refused(deploy(dispatcher, "dag: chain\njobs: {}\nunknown: 1\n")) == "INVALID_DOCUMENT"
    assert await _refused(dispatcher.dags.RemoveDag(pb.RemoveDagRequest(dag="chian"))) == "DAG_NOT_FOUND"
    unknown = pb.CutOverDagRequest(deployment_id=new_id())
    assert await _refused(dispatcher.dags.CutOverDag(unknown)) == "DEPLOYMENT_NOT_FOUND"
    assert await dispatcher.value("select count(*) from audit") == before


async def test_the_same_refusal_is_recorded_once_a_minute(dispatcher: InProcess, source: Source) -> None:
    held = await deploy(dispatcher, CHANGED, hold=True)
    request = pb.CutOverDagRequest(deployment_id=held.deployment_id)
    await asyncio.gather(*(_refused(dispatcher.dags.CutOverDag(request)) for _ in range(5)))
    minutes = "select count(*), count(distinct date_trunc('minute', at)) from audit where outcome = 'refused'"
    ((rows, different),) = await dispatcher.rows(minutes)
    assert rows == different


async def test_refusals_of_all_actors_have_room_for_so_many_a_minute(
    dispatcher: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "MOST_REFUSALS", 3)
    for number in range(10):
        refusal = Refusal(Action.ABORT, f"user:{number}", "DEPLOYMENT_FINAL", "it is active", "chain")
        await store.record_refusal(dispatcher.pool, refusal)
    ((rows, different),) = await dispatcher.rows("select count(*), count(distinct date_trunc('minute', at)) from audit")
    assert rows <= 3 * different


async def test_a_refusal_is_answered_though_it_cannot_be_recorded(dispatcher: InProcess, source: Source) -> None:
    await dispatcher.run("alter table audit add constraint nothing_refused check (outcome = 'done')")
    active = await dispatcher.value("select active_version_id::text from dag")
    request = pb.AbortDeploymentRequest(deployment_id=active)
    assert await _refused(dispatcher.dags.AbortDeployment(request)) == "DEPLOYMENT_FINAL"
