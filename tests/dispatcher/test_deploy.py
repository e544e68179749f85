"""Deploying: all of it or nothing, the same answer twice, and on record."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest

from kernel import bundles
from kernel.errors import from_rpc_error
from kernel.ids import new_id
from tests.dispatcher.builders import CHAIN, READER
from tests.dispatcher.in_process import InProcess
from traceapi.control.v1 import dag_service_pb2 as pb

CODED = """\
dag: coded
jobs:
  blocks:
    source: replay
    config: {path: /data/blocks.csv, cursor: number}
    outputs: {coded.blocks: {cursor: {column: number, type: int64}, schema: {number: int64}}}
  checked:
    operator: python
    runtime: python3.11
    code: {bundle: ./operators, entrypoint: "checks:links"}
    inputs: {coded.blocks: {}}
    outputs: {coded.checked: {schema: {number: int64}}}
"""


def _request(document: str, *, request_id: str | None = None, **digests: str) -> pb.DeployDagRequest:
    source = pb.DagDocument(text=document, file_name="dag.yaml")
    return pb.DeployDagRequest(document=source, bundles=digests, request_id=request_id or new_id())


async def _deployed(dispatcher: InProcess) -> list[str]:
    return [summary.dag for summary in (await dispatcher.dags.ListDags(pb.ListDagsRequest())).dags]


async def _reason(dispatcher: InProcess, document: str, **digests: str) -> str:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await dispatcher.dags.DeployDag(_request(document, **digests))
    return from_rpc_error(raised.value).reason_name


async def test_an_unchanged_document_answers_its_deployment(dispatcher: InProcess) -> None:
    first = await dispatcher.dags.DeployDag(_request(CHAIN))
    again = await dispatcher.dags.DeployDag(_request(CHAIN + "\n# a comment is not a change\n"))
    assert (first.unchanged, again.unchanged) == (False, True)
    assert again.deployment == first.deployment
    assert await dispatcher.value("select count(*) from task") == 1


@pytest.mark.parametrize(("faults", "shown"), [(3, "3 problems;"), (500, "200 problems, or more;")])
async def test_no_more_problems_are_counted_than_are_answered(dispatcher: InProcess, faults: int, shown: str) -> None:
    request = _request(CHAIN + "".join(f"key{number}: 1\n" for number in range(faults)))
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await dispatcher.dags.DeployDag(request)
    error = from_rpc_error(raised.value)
    assert f"the document has {shown}" in error.message
    assert len(error.violations) == min(faults, 200)
    answer = await dispatcher.dags.ValidateDag(pb.ValidateDagRequest(document=request.document))
    assert (len(answer.problems), answer.more_problems) == (min(faults, 200), faults > 200)


@pytest.mark.parametrize("dataset", ["blocks", "BLOCKS"])
async def test_a_dataset_of_another_dag_is_refused(dispatcher: InProcess, dataset: str) -> None:
    await dispatcher.deploy(CHAIN)
    rival = (
        f"dag: rival\njobs:\n  blocks:\n    source: replay\n    config: {{path: /data/b.csv, cursor: number}}\n"
        f"    outputs: {{{dataset}: {{cursor: {{column: number, type: int64}}, schema: {{number: int64}}}}}}\n"
    )
    assert await _reason(dispatcher, rival) == "DATASET_OWNED"
    assert await _deployed(dispatcher) == ["chain"]


@pytest.mark.races
async def test_of_two_dags_that_claim_one_dataset_at_once_one_gets_it(dispatcher: InProcess) -> None:
    """Both documents were checked before either was deployed: the registry decides, by the folded id."""
    rival = CHAIN.replace("dag: chain", "dag: rival").replace("blocks", "BLOCKS").replace("ranges", "spans")
    calls = [dispatcher.dags.DeployDag(_request(text)) for text in (CHAIN, rival.replace("copies", "doubles"))]
    results = await asyncio.gather(*calls, return_exceptions=True)
    refused = [from_rpc_error(result) for result in results if isinstance(result, grpc.aio.AioRpcError)]
    assert [error.reason_name in {"DATASET_OWNED", "INVALID_DOCUMENT"} for error in refused] == [True]
    assert len(await _deployed(dispatcher)) == 1


@pytest.mark.races
async def test_two_first_deployments_of_one_dag_are_one(dispatcher: InProcess) -> None:
    responses = await asyncio.gather(*(dispatcher.dags.DeployDag(_request(CHAIN)) for _ in range(4)))
    assert len({response.deployment.deployment_id for response in responses}) == 1
    assert sorted(response.unchanged for response in responses) == [False, True, True, True]
    assert await dispatcher.value("select count(*) from task") == 1
    assert await dispatcher.value("select deploy_number from deploy_counter") == 1


async def test_a_repeated_call_gets_the_first_answer_and_its_id_is_for_that_document_alone(
    dispatcher: InProcess,
) -> None:
    request = _request(CHAIN)
    first = await dispatcher.dags.DeployDag(request)
    again = await dispatcher.dags.DeployDag(request)
    assert (again.unchanged, again.deployment) == (True, first.deployment)
    other = CHAIN.replace("size: 10", "size: 20")
    for document in (other, READER):
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await dispatcher.dags.DeployDag(_request(document, request_id=request.request_id.upper()))
        assert from_rpc_error(raised.value).reason_name == "REQUEST_ID_REUSED"
    assert await dispatcher.value("select count(*) from dag_version") == 1


@pytest.mark.races
async def test_one_request_id_for_two_dags_at_once_deploys_one(dispatcher: InProcess) -> None:
    other = CHAIN.replace("dag: chain", "dag: other").replace("blocks", "blips").replace("ranges", "spans")
    request_id = new_id()
    documents = (CHAIN, other.replace("copies", "doubles"))
    calls = [dispatcher.dags.DeployDag(_request(document, request_id=request_id)) for document in documents]
    results = await asyncio.gather(*calls, return_exceptions=True)
    refused = [from_rpc_error(result) for result in results if isinstance(result, grpc.aio.AioRpcError)]
    assert [error.reason_name for error in refused] == ["REQUEST_ID_REUSED"]
    assert len(await _deployed(dispatcher)) == 1


async def test_code_that_was_not_uploaded_is_missing(dispatcher: InProcess) -> None:
    assert await _reason(dispatcher, CODED) == "BUNDLE_MISSING"
    assert await _reason(dispatcher, CODED, **{"./operators": "0" * 64}) == "BUNDLE_MISSING"


async def test_code_travels_by_its_digest(dispatcher: InProcess, tmp_path: Path) -> None:
    folder = tmp_path / "operators"
    folder.mkdir()
    (folder / "checks.py").write_text("def links(task):\n    pass\n")
    bundle = bundles.pack(folder)
    parts = [pb.UploadBundleRequest(sha256=bytes.fromhex(bundle.digest)), pb.UploadBundleRequest(data=bundle.data)]
    for existed in (False, True):
        uploaded = await dispatcher.dags.UploadBundle(_each(parts))
        assert (uploaded.digest, uploaded.existed) == (bundle.digest, existed)
    deployed = await dispatcher.dags.DeployDag(_request(CODED, **{"./operators": bundle.digest}))
    assert {job.job for job in deployed.deployment.jobs} == {"blocks", "checked"}
    (folder / "checks.py").write_text("def links(task):\n    return 1\n")
    other = bundles.pack(folder)
    parts = [pb.UploadBundleRequest(sha256=bytes.fromhex(other.digest)), pb.UploadBundleRequest(data=other.data)]
    await dispatcher.dags.UploadBundle(_each(parts))
    changed = await dispatcher.dags.DeployDag(_request(CODED, **{"./operators": other.digest}))
    assert (changed.unchanged, changed.deployment.version) == (False, 2), "other code is a change"


async def _each(parts: list[pb.UploadBundleRequest]) -> AsyncIterator[pb.UploadBundleRequest]:
    for part in parts:
        yield part


async def test_bytes_of_another_digest_are_refused(dispatcher: InProcess) -> None:
    parts = [pb.UploadBundleRequest(sha256=bytes(32)), pb.UploadBundleRequest(data=b"other")]
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await dispatcher.dags.UploadBundle(_each(parts))
    assert from_rpc_error(raised.value).reason_name == "BUNDLE_DIGEST_MISMATCH"


async def test_every_mutation_is_on_record_with_its_actor(dispatcher: InProcess) -> None:
    await dispatcher.deploy(CHAIN)
    await dispatcher.deploy(READER)
    await dispatcher.dags.PauseDag(pb.PauseDagRequest(dag="chain"))
    await dispatcher.dags.ResumeDag(pb.ResumeDagRequest(dag="chain"))
    assert await dispatcher.rows("select actor, method, subject from audit order by audit_id") == [
        ("user:tester", "DagService.DeployDag", "chain"),
        ("user:tester", "DagService.DeployDag", "reader"),
        ("user:tester", "DagService.PauseDag", "chain"),
        ("user:tester", "DagService.ResumeDag", "chain"),
    ]
    history = await dispatcher.dags.ListDagHistory(pb.ListDagHistoryRequest(dag="chain"))
    assert [(item.version, item.actor, item.deploy_number) for item in history.deployments] == [(1, "user:tester", 1)]
