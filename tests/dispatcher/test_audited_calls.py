"""Every call of the control API that changes something is on record, once; no call is left out of this page."""

import importlib
import os
import pkgutil
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import grpc
import pytest
import pytest_asyncio
from google.protobuf.descriptor import MethodDescriptor

import traceapi.control.v1
from dispatcher.db.pool import Pool
from kernel import bundles
from kernel.errors import from_rpc_error
from kernel.ids import new_id
from tests.dispatcher.builders import Worker, failure, int64, start_source
from tests.dispatcher.changing import CHANGED, PIPELINE, Fleet, deploy
from tests.dispatcher.giving_up import fill, replace
from tests.dispatcher.in_process import InProcess, in_process_dispatcher
from traceapi.control.v1 import dag_service_pb2 as dags
from traceapi.control.v1 import effect_service_pb2 as effects
from traceapi.control.v1 import queue_service_pb2 as queues
from traceapi.control.v1 import retention_service_pb2 as retention
from traceapi.control.v1 import source_service_pb2 as sources
from traceapi.control.v1 import task_service_pb2 as tasks
from traceapi.control.v1.effect_service_pb2_grpc import EffectServiceStub
from traceapi.types.v1.scope_pb2 import CursorRange
from traceapi.types.v1.task_pb2 import TASK_STATE_DEAD, ErrorClass

READS = {
    *("ValidateDag", "WatchDeployment", "GetDag", "ListDags", "ListDagHistory", "ListDagChanges"),
    *("GetTask", "ListTasks", "CountTasks", "ExplainTask", "ListQueues", "ListUnusedVersions", "ListEffects"),
    *("GetDataset", "ListDatasets", "ListDatasetVersions", "GetLineage", "ListEvents", "ResolveDatasets"),
    "ListQueryRecords",
}
LEASES = {"PinDatasets", "RenewPin", "ReleasePin"}
"""A query's, for a minute at a time: its own row has the actor, for as long as it lives."""
RECORDS = {"RecordQueries"}
"""What is on record by itself: of each query, by queryd alone."""
ONE_BLOCK = CursorRange(first=int64(1), last=int64(1))

Arranged = Callable[[], Awaitable[object]]


@pytest_asyncio.fixture
async def dispatcher(pool: Pool, tmp_path: Path) -> AsyncIterator[InProcess]:
    """Its rollback window is empty, so that what was replaced can be collected."""
    async with in_process_dispatcher(pool, tmp_path / "artifacts", rollback_versions=0, rollback_days=0.0) as running:
        yield running


async def _begin(dispatcher: InProcess) -> None:
    """The pipeline over three blocks, all done."""
    await deploy(dispatcher, PIPELINE)
    source = await start_source(dispatcher)
    await source.publish([1, 2, 3])
    await Fleet(dispatcher).work("copies", "echo", "apart")


async def _die(dispatcher: InProcess) -> tasks.TaskFilter:
    """One task of `copies` is DEAD."""
    await deploy(dispatcher, PIPELINE)
    source = await start_source(dispatcher)
    await source.publish([1])
    await dispatcher.release()
    worker = Worker(dispatcher)
    claimed = await worker.claim_one(await dispatcher.task_of("chain", "copies", 1))
    broken = failure(worker.lease(claimed), error_class=ErrorClass.ERROR_CLASS_INVALID_OUTPUT)
    assert await worker.complete(broken) == ["dead"]
    return tasks.TaskFilter(states=[TASK_STATE_DEAD])


async def _upload_bundle(dispatcher: InProcess, home: Path) -> Arranged:
    folder = home / "operators"
    folder.mkdir()
    (folder / "checks.py").write_text("def links(task): ...\n")
    bundle = bundles.pack(folder)

    async def parts() -> AsyncIterator[dags.UploadBundleRequest]:
        yield dags.UploadBundleRequest(sha256=bytes.fromhex(bundle.digest))
        yield dags.UploadBundleRequest(data=bundle.data)

    async def upload() -> object:
        return await dispatcher.dags.UploadBundle(parts())

    return upload


async def _plan(dispatcher: InProcess, home: Path) -> Arranged:
    return lambda: dispatcher.dags.PlanDag(dags.PlanDagRequest(document=dags.DagDocument(text=PIPELINE)))


async def _deploy(dispatcher: InProcess, home: Path) -> Arranged:
    await _begin(dispatcher)
    return lambda: deploy(dispatcher, CHANGED)


async def _cut_over(dispatcher: InProcess, home: Path) -> Arranged:
    await _begin(dispatcher)
    held = await deploy(dispatcher, CHANGED, hold=True)
    await Fleet(dispatcher).catch_up()
    return lambda: dispatcher.dags.CutOverDag(dags.CutOverDagRequest(deployment_id=held.deployment_id))


async def _abort(dispatcher: InProcess, home: Path) -> Arranged:
    await _begin(dispatcher)
    held = await deploy(dispatcher, CHANGED, hold=True)
    return lambda: dispatcher.dags.AbortDeployment(dags.AbortDeploymentRequest(deployment_id=held.deployment_id))


async def _roll_back(dispatcher: InProcess, home: Path) -> Arranged:
    await _begin(dispatcher)
    await deploy(dispatcher, CHANGED)
    await Fleet(dispatcher).catch_up()
    return lambda: dispatcher.dags.RollbackDag(dags.RollbackDagRequest(dag="chain", request_id=new_id()))


async def _remove(dispatcher: InProcess, home: Path) -> Arranged:
    await _begin(dispatcher)
    return lambda: dispatcher.dags.RemoveDag(dags.RemoveDagRequest(dag="chain"))


async def _pause(dispatcher: InProcess, home: Path) -> Arranged:
    await _begin(dispatcher)
    return lambda: dispatcher.dags.PauseDag(dags.PauseDagRequest(dag="chain", jobs=["copies"]))


async def _resume(dispatcher: InProcess, home: Path) -> Arranged:
    await _begin(dispatcher)
    await dispatcher.dags.PauseDag(dags.PauseDagRequest(dag="chain"))
    return lambda: dispatcher.dags.ResumeDag(dags.ResumeDagRequest(dag="chain"))


async def _retry(dispatcher: InProcess, home: Path) -> Arranged:
    dead = await _die(dispatcher)
    return lambda: dispatcher.tasks.RetryTasks(tasks.RetryTasksRequest(filter=dead))


async def _skip(dispatcher: InProcess, home: Path) -> Arranged:
    dead = await _die(dispatcher)
    return lambda: dispatcher.tasks.SkipTasks(tasks.SkipTasksRequest(filter=dead, reason="no use"))


async def _cancel(dispatcher: InProcess, home: Path) -> Arranged:
    await _die(dispatcher)
    chosen = tasks.TaskFilter(job="apart")
    return lambda: dispatcher.tasks.CancelTasks(tasks.CancelTasksRequest(filter=chosen))


async def _rerun(dispatcher: InProcess, home: Path) -> Arranged:
    await _begin(dispatcher)
    chosen = tasks.TaskFilter(job="copies")
    return lambda: dispatcher.tasks.RerunTasks(tasks.RerunTasksRequest(filter=chosen, request_id=new_id()))


async def _backfill(dispatcher: InProcess, home: Path) -> Arranged:
    await _begin(dispatcher)
    request = sources.BackfillJobRequest(dag="chain", job="copies", range=ONE_BLOCK, request_id=new_id())
    return lambda: dispatcher.sources.BackfillJob(request)


async def _set_queue(dispatcher: InProcess, home: Path) -> Arranged:
    return lambda: dispatcher.queues.SetQueue(queues.SetQueueRequest(queue="default", window_size=8))


async def _collect_versions(dispatcher: InProcess, home: Path) -> Arranged:
    await fill(dispatcher, [1, 2])
    former = await replace(dispatcher)
    request = retention.CollectVersionsRequest(dataset_version_ids=former.ids)
    return lambda: dispatcher.retention.CollectVersions(request)


async def _collect_orphans(dispatcher: InProcess, home: Path) -> Arranged:
    key = f"data/{uuid.uuid4()}/{uuid.uuid4()}-1-0.parquet"
    dispatcher.store.put_bytes(key, b"lost")
    os.utime(home / "artifacts" / key, (0, 0))

    async def collect() -> object:
        return [answer async for answer in dispatcher.retention.CollectOrphans(retention.CollectOrphansRequest())]

    return collect


MUTATIONS: dict[str, tuple[Callable[[InProcess, Path], Awaitable[Arranged]], list[str]]] = {
    "UploadBundle": (_upload_bundle, ["upload_bundle"]),
    "PlanDag": (_plan, ["plan"]),
    "DeployDag": (_deploy, ["deploy"]),
    "CutOverDag": (_cut_over, ["cut_over"]),
    "AbortDeployment": (_abort, ["abort"]),
    "RollbackDag": (_roll_back, ["roll_back"]),
    "RemoveDag": (_remove, ["remove"]),
    "PauseDag": (_pause, ["pause"]),
    "ResumeDag": (_resume, ["resume"]),
    "RetryTasks": (_retry, ["retry"]),
    "SkipTasks": (_skip, ["skip"]),
    "CancelTasks": (_cancel, ["cancel"]),
    "RerunTasks": (_rerun, ["rerun"]),
    "BackfillJob": (_backfill, ["backfill"]),
    "SetQueue": (_set_queue, ["set_queue"]),
    # The moment from which on they are gone, and then the end of each of three.
    "CollectVersions": (_collect_versions, ["condemn", "collect", "collect", "collect"]),
    "CollectOrphans": (_collect_orphans, ["collect_orphans"]),
}
UNSERVED: dict[str, Callable[[InProcess], Awaitable[object]]] = {
    "TriggerSource": lambda on: on.sources.TriggerSource(
        sources.TriggerSourceRequest(dag="chain", job="blocks", request_id=new_id())
    ),
    "EmitExternalEvents": lambda on: on.sources.EmitExternalEvents(
        sources.EmitExternalEventsRequest(dag="chain", job="blocks", request_id=new_id())
    ),
    "SettleEffect": lambda on: EffectServiceStub(on.control).SettleEffect(
        effects.SettleEffectRequest(effect_id=new_id(), reason="why")
    ),
}


def _methods() -> Iterator[MethodDescriptor]:
    for module in pkgutil.iter_modules(traceapi.control.v1.__path__):
        if module.name.endswith("_pb2"):
            descriptor = importlib.import_module(f"traceapi.control.v1.{module.name}").DESCRIPTOR
            for service in descriptor.services_by_name.values():
                yield from service.methods


def test_no_call_of_the_control_api_is_left_out() -> None:
    assert {method.name for method in _methods()} == READS | LEASES | RECORDS | set(MUTATIONS) | set(UNSERVED)


@pytest.mark.parametrize("name", MUTATIONS)
async def test_a_change_is_recorded_once_with_its_actor_and_outcome(
    dispatcher: InProcess, tmp_path: Path, name: str
) -> None:
    arrange, actions = MUTATIONS[name]
    call = await arrange(dispatcher, tmp_path)
    before = await dispatcher.value("select coalesce(max(audit_id), 0) from audit")
    await call()
    rows = await dispatcher.rows(
        "select action, method, actor, outcome::text from audit where audit_id > %s order by audit_id", before
    )
    (method,) = {f"{method.containing_service.name}.{name}" for method in _methods() if method.name == name}
    assert rows == [(action, method, "user:tester", "done") for action in actions]


@pytest.mark.parametrize("name", UNSERVED)
async def test_what_is_not_served_yet_has_its_place_here_once_it_is(dispatcher: InProcess, name: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await UNSERVED[name](dispatcher)
    assert from_rpc_error(refused.value).reason_name == "NOT_IMPLEMENTED"
    assert await dispatcher.value("select count(*) from audit") == 0
