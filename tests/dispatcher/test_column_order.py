"""A dataset version keeps the order of its columns: as declared, as its SQL gives it, or as the first file has it."""

from collections.abc import Sequence

from tests.dispatcher.builders import Worker, artifact, at, event, reason_of
from tests.dispatcher.in_process import InProcess
from traceapi.control.v1 import dataset_service_pb2 as pb
from traceapi.types.v1.dataset_pb2 import Dataset
from traceapi.types.v1.job_pb2 import JobDetails
from traceapi.worker.v1 import worker_service_pb2 as worker_pb
from traceapi.worker.v1.emit_pb2 import EmitItem, EmitResult

# By name they are gas, hash, number.
WRITTEN = ["number", "hash", "gas"]
WORDS = dict.fromkeys(WRITTEN, "int64")
DOCUMENT = """\
dag: chain
jobs:
  blocks:
    source: replay
    config: {path: /data/blocks.csv, cursor: number}
    outputs: {blocks: {cursor: {column: number, type: int64}, schema: {number: int64, hash: int64, gas: int64}}}
  free:
    source: replay
    config: {path: /data/free.parquet, cursor: number}
    outputs: {free: {cursor: {column: number, type: int64}}}
  marks: {operator: splitter, inputs: {free: {}}, outputs: {marks: {storage: none}}}
  copies:
    operator: sql
    config: {sql: select * from blocks}
    inputs: {blocks: {}, shown: {}}
    outputs: {copies: {}}
  shown: {virtual: {sql: "select gas, number from blocks"}, outputs: {shown: {}}}
"""
REORDERED = DOCUMENT.replace("{number: int64, hash: int64, gas: int64}", "{gas: int64, number: int64, hash: int64}")


async def dataset(dispatcher: InProcess, name: str) -> Dataset:
    """As lists, single answers and pins have it, which is the same."""
    request = pb.PinDatasetsRequest(names=[name])
    request.lease_duration.FromSeconds(60)
    pinned = (await dispatcher.datasets.PinDatasets(request)).datasets[0].dataset
    single = (await dispatcher.datasets.GetDataset(pb.GetDatasetRequest(dataset_id=name))).dataset
    (version,) = (
        await dispatcher.datasets.ListDatasetVersions(pb.ListDatasetVersionsRequest(dataset_id=name))
    ).versions
    listed = {
        one.dataset_id: one for one in (await dispatcher.datasets.ListDatasets(pb.ListDatasetsRequest())).datasets
    }
    orders = [list(one.served_version.column_order) for one in (pinned, single, listed[name])]
    assert orders == [list(version.column_order)] * 3
    return single


async def order_of(dispatcher: InProcess, name: str) -> list[str]:
    return list((await dataset(dispatcher, name)).served_version.column_order)


async def inputs_of(dispatcher: InProcess, job: str) -> dict[str, list[str]]:
    """The orders in which the active version's job reads its inputs."""
    query = (
        "select j.details from dag d join dag_version_job j on j.dag_version_id = d.active_version_id"
        " join job_version v using (job_version_id) where v.job = %s"
    )
    details = JobDetails.FromString(await dispatcher.value(query, job))
    return {item.dataset_id: list(item.column_order) for item in details.inputs}


async def emit_free(dispatcher: InProcess, order: Sequence[str]) -> EmitResult:
    """A first file of the dataset whose columns nobody declared."""
    await dispatcher.release()
    query = "select t.task_id::text from task t join job_version using (job_version_id) where job = 'free'"
    worker = Worker(dispatcher)
    run = await worker.claim_one(await dispatcher.value(query))
    file = await artifact(dispatcher, "free", at(1), schema=WORDS)
    file.column_order[:] = order
    item = EmitItem(tasks=[worker.lease(run)], artifacts=[file], events=[event("free", at(1), artifact=0)])
    (result,) = await worker.emit(item)
    return result


async def test_declared_columns_and_those_of_sql_have_their_order_before_any_row(dispatcher: InProcess) -> None:
    await dispatcher.deploy(DOCUMENT)
    assert await order_of(dispatcher, "blocks") == WRITTEN
    assert await order_of(dispatcher, "copies") == WRITTEN
    assert await order_of(dispatcher, "shown") == ["gas", "number"]
    assert await order_of(dispatcher, "free") == []
    assert await inputs_of(dispatcher, "copies") == {"blocks": WRITTEN, "shown": ["gas", "number"]}


async def test_the_first_file_says_the_order_of_columns_that_nobody_declared(dispatcher: InProcess) -> None:
    await dispatcher.deploy(DOCUMENT)
    assert (await emit_free(dispatcher, WRITTEN)).HasField("accepted")
    assert await order_of(dispatcher, "free") == WRITTEN


async def test_a_job_that_was_deployed_before_the_first_file_is_told_the_columns_with_the_files(
    dispatcher: InProcess,
) -> None:
    await dispatcher.deploy(DOCUMENT)
    assert (await emit_free(dispatcher, WRITTEN)).HasField("accepted")
    await dispatcher.release()
    worker = Worker(dispatcher)
    lease = worker.lease(await worker.claim_one(await dispatcher.task_of("chain", "marks", 1)))
    request = worker_pb.ResolveInputsRequest(items=[worker_pb.ResolveInputItem(lease=lease, dataset_id="free")])
    (page,) = [page async for page in dispatcher.worker.ResolveInputs(request)]
    (file,) = page.artifacts
    assert (dict(file.schema), list(file.column_order)) == (WORDS, WRITTEN)


async def test_a_file_of_an_older_worker_says_none_and_then_it_is_that_of_the_names(dispatcher: InProcess) -> None:
    await dispatcher.deploy(DOCUMENT)
    assert (await emit_free(dispatcher, [])).HasField("accepted")
    assert await order_of(dispatcher, "free") == sorted(WRITTEN)


async def test_an_order_of_other_columns_than_those_of_the_file_is_refused(dispatcher: InProcess) -> None:
    await dispatcher.deploy(DOCUMENT)
    refused = (await emit_free(dispatcher, ["number", "hash", "hash"])).error
    assert reason_of(refused) == "INVALID_REQUEST"
    assert "is not one of exactly its columns" in refused.message


async def test_the_first_file_of_a_sql_job_leaves_the_order_that_was_bound(dispatcher: InProcess) -> None:
    await dispatcher.deploy(DOCUMENT)
    version = "(select dataset_version_id from pointer where dataset_id = 'copies')"
    task = await _task_of_copies(dispatcher)
    worker = Worker(dispatcher)
    claimed = await worker.claim_one(task)
    file = await artifact(dispatcher, "copies", at(1), schema=WORDS)
    file.column_order[:] = ["gas", "hash", "number"]
    item = EmitItem(tasks=[worker.lease(claimed)], artifacts=[file], events=[event("copies", at(1), artifact=0)])
    assert (await worker.emit(item))[0].HasField("accepted")
    assert await dispatcher.value(
        f"select schema_digest is not null from dataset_version where dataset_version_id = {version}"  # noqa: S608
    )
    assert await order_of(dispatcher, "copies") == WRITTEN


async def _task_of_copies(dispatcher: InProcess) -> str:
    """The task of the block 1."""
    await dispatcher.release()
    worker = Worker(dispatcher)
    query = "select t.task_id::text from task t join job_version using (job_version_id) where job = 'blocks'"
    run = await worker.claim_one(await dispatcher.value(query))
    file = await artifact(dispatcher, "blocks", at(1), schema=WORDS)
    item = EmitItem(
        tasks=[worker.lease(run)],
        artifacts=[file],
        events=[event("blocks", at(1), artifact=0)],
    )
    assert (await worker.emit(item))[0].HasField("accepted")
    await dispatcher.release()
    return await dispatcher.task_of("chain", "copies", 1)


async def test_another_order_alone_builds_nothing_and_changes_no_version_that_is_there(dispatcher: InProcess) -> None:
    """Nor what a job reads: the same version of it would write something else than before."""
    await dispatcher.deploy(DOCUMENT)
    before = {name: await dataset(dispatcher, name) for name in ("blocks", "copies", "shown")}
    deployment = await dispatcher.deploy(REORDERED)
    assert deployment.version == 2
    assert {name: await dataset(dispatcher, name) for name in before} == before
    assert await inputs_of(dispatcher, "copies") == {"blocks": WRITTEN, "shown": ["gas", "number"]}


async def test_the_next_version_has_the_order_that_is_written_then(dispatcher: InProcess) -> None:
    await dispatcher.deploy(DOCUMENT)
    await dispatcher.deploy(REORDERED)
    await dispatcher.deploy(REORDERED.replace("hash: int64", "hash: int64, fee: int64"))
    query = "select column_order from dataset_version where dataset_id = %s order by dataset_version_id desc limit 1"
    for name in ("blocks", "copies"):
        assert await dispatcher.value(query, name) == ["gas", "number", "hash", "fee"]


async def test_a_version_from_before_orders_were_kept_has_that_of_the_names(dispatcher: InProcess) -> None:
    await dispatcher.deploy(DOCUMENT)
    await dispatcher.run("update dataset_version set column_order = null")
    assert await order_of(dispatcher, "blocks") == sorted(WRITTEN)
    await dispatcher.deploy(REORDERED)
    assert await order_of(dispatcher, "blocks") == sorted(WRITTEN)
    assert await inputs_of(dispatcher, "copies") == {"blocks": [], "shown": []}, "which stands for that"


async def test_readers_in_other_dags_are_checked_against_the_order_of_the_version(dispatcher: InProcess) -> None:
    await dispatcher.deploy(DOCUMENT)
    assert (await emit_free(dispatcher, WRITTEN)).HasField("accepted")
    star = "dag: other\njobs:\n"
    star += "  a: {virtual: {sql: select * from free}, outputs: {a: {}}}\n"
    star += "  b: {virtual: {sql: select * from copies}, outputs: {b: {}}}\n"
    await dispatcher.deploy(star)
    assert await order_of(dispatcher, "a") == await order_of(dispatcher, "b") == WRITTEN
