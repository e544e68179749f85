"""A deploy is many transactions, any of which may be its last; and others deploy meanwhile. It becomes true at once."""
# ruff: noqa: S608 -- names of tables of a list

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any, Literal

import grpc
import psycopg
import pytest
import pytest_asyncio

from dispatcher.db.pool import Pool
from dispatcher.db.pool import transaction as pool_transaction
from dispatcher.db.rows import Connection
from dispatcher.deploy import building, deploying, paging, store
from kernel.call_metadata import AIO_INTERCEPTORS, CallMetadata
from kernel.errors import from_rpc_error
from kernel.ids import new_id
from tests.dispatcher.builders import CHAIN, READER, start_source
from tests.dispatcher.in_process import USER, InProcess
from traceapi.control.v1 import dag_service_pb2 as pb
from traceapi.control.v1 import dataset_service_pb2 as dataset_pb
from traceapi.control.v1.dag_service_pb2_grpc import DagServiceStub
from traceapi.control.v1.deployment_pb2 import DEPLOYMENT_STATE_ACTIVE, DEPLOYMENT_STATE_BUILDING

if TYPE_CHECKING:  # the stubs' types for asyncio exist in the .pyi only
    from traceapi.control.v1.dag_service_pb2_grpc import DagServiceAsyncStub

OTHER = CHAIN.replace("size: 10", "size: 20")
SHARED = """\
dag: shared
jobs:
  blocks:
    source: replay
    config: {path: /data/blocks.csv, cursor: number}
    outputs: {blocks: {cursor: {column: number, type: int64}, schema: {number: int64}}}
  left: {operator: splitter, inputs: {blocks: {}}, outputs: {parts: {storage: none, writers: many}}}
  right: {operator: splitter, inputs: {blocks: {}}, outputs: {parts: {storage: none, writers: many}}}
"""
DEADLINE = 20
ACTIVE = 8  # the transaction that makes CHAIN active, in small pages: one begins, three are of jobs, three of the rest

# What the active version of CHAIN is: every job with what it writes and reads, what is served, and what it is owed.
COMPOSITION = """
select j.job, r.run_state::text, o.dataset_id, s.dataset_version_id = o.dataset_version_id, h.number,
    b.dataset_id, b.dataset_version_id = p.dataset_version_id,
    (select count(*) from subscription u
     where u.job_version_id = j.job_version_id and u.input_version_id = b.dataset_version_id and u.to_number is null),
    (select count(*) from task t where t.job_version_id = j.job_version_id)
from dag d
join dag_version_job c on c.dag_version_id = d.active_version_id
join job_version j using (job_version_id)
join job_version_run r using (job_version_id)
left join job_output w using (job_version_id)
left join dataset_version o using (dataset_version_id)
left join dataset_head h using (dataset_version_id)
left join dag_version_dataset s on s.dag_version_id = d.active_version_id and s.dataset_id = o.dataset_id
left join input_binding b on b.dag_version_id = d.active_version_id and b.job_version_id = j.job_version_id
left join pointer p on p.dataset_id = b.dataset_id
order by j.job
"""
# Another version of `blocks` is served.
MOVE = """
with made as (
    insert into dataset_version (dataset_version_id, dataset_id, fingerprint, spec, cursor_type, stored)
    select gen_random_uuid(), dataset_id, sha256('new'), spec, cursor_type, stored
    from dataset_version
    where dataset_id = 'blocks'
    returning dataset_version_id
), head as (
    insert into dataset_head (dataset_version_id) select dataset_version_id from made
)
update dag_version_dataset s
set dataset_version_id = made.dataset_version_id
from made
where s.dataset_id = 'blocks'
"""
WHOLE = [
    ("blocks", "running", "blocks", True, 0, None, None, 0, 1),
    ("copies", "running", "copies", True, 0, "blocks", True, 1, 0),
    ("ranges", "running", "ranges", True, 0, "blocks", True, 1, 0),
]


class Interruption:
    """Stands in for `transaction` in deploys. To one of them, counted from 1, something happens:

    `stop`: it waits before it begins; `cut`: its connection is cut before COMMIT; `lose`: it is committed, and its
    answer is lost.
    """

    def __init__(self, at: int, what: Literal["stop", "cut", "lose"]) -> None:
        self._at, self._what, self.seen = at, what, 0
        self.reached, self.go_on = asyncio.Event(), asyncio.Event()

    @contextlib.asynccontextmanager
    async def transaction(self, pool: Pool) -> AsyncIterator[Connection]:
        self.seen += 1
        what = self._what if self.seen == self._at else None
        if what == "stop":
            self.reached.set()
            await self.go_on.wait()
        async with pool_transaction(pool) as connection:
            yield connection
            if what == "cut":
                async with pool_transaction(pool) as other:
                    await other.execute("select pg_terminate_backend(%s, 5000)", [connection.info.backend_pid])
        if what == "lose":
            raise psycopg.OperationalError("the connection is lost")


@pytest_asyncio.fixture
async def once(dispatcher: InProcess) -> AsyncIterator["DagServiceAsyncStub"]:
    """A client that does not repeat a call by itself, so that a test sees what is between two."""
    metadata = CallMetadata(USER, "tester")
    async with grpc.aio.insecure_channel(
        dispatcher.addresses["control"],
        [("grpc.enable_retries", 0)],
        interceptors=[make(metadata) for make in AIO_INTERCEPTORS],
    ) as channel:
        yield DagServiceStub(channel)


@pytest.fixture(autouse=True)
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paging, "PAGE_ROWS", 3)


def _interrupt(monkeypatch: pytest.MonkeyPatch, at: int, what: Literal["stop", "cut", "lose"]) -> Interruption:
    interruption = Interruption(at, what)
    for module in (building, deploying):
        monkeypatch.setattr(module, "transaction", interruption.transaction)
    return interruption


def _request(document: str) -> pb.DeployDagRequest:
    return pb.DeployDagRequest(document=pb.DagDocument(text=document, file_name="dag.yaml"), request_id=new_id())


async def _refusal(dags: "DagServiceAsyncStub", request: pb.DeployDagRequest) -> str:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await dags.DeployDag(request)
    return from_rpc_error(raised.value).reason_name


async def _leave_unfinished(dags: "DagServiceAsyncStub", monkeypatch: pytest.MonkeyPatch, document: str) -> None:
    """Deploys all but the last transaction."""
    with monkeypatch.context() as patched:
        patched.setattr(deploying, "_stage", _die)
        assert await _refusal(dags, _request(document)) == "UNAVAILABLE"


async def _die(*arguments: Any) -> None:
    raise psycopg.OperationalError("the dispatcher is gone")


async def _nothing_is_seen(dispatcher: InProcess) -> None:
    assert not (await dispatcher.dags.ListDags(pb.ListDagsRequest())).dags
    assert not (await dispatcher.datasets.ListDatasets(dataset_pb.ListDatasetsRequest())).datasets
    for call in (
        dispatcher.dags.GetDag(pb.GetDagRequest(dag="chain")),
        dispatcher.dags.ListDagHistory(pb.ListDagHistoryRequest(dag="chain")),
        dispatcher.datasets.ListDatasetVersions(dataset_pb.ListDatasetVersionsRequest(dataset_id="blocks")),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await call
        assert from_rpc_error(raised.value).reason_name in {"DAG_NOT_FOUND", "DATASET_NOT_FOUND"}
    for table in ("dataset", "pointer", "pointer_history", "subscription", "task", "audit", "deploy_request"):
        assert await dispatcher.value(f"select count(*) from {table}") == 0, table
    assert await dispatcher.value("select deploy_number from deploy_counter") == 0


@pytest.mark.parametrize("what", ["cut", "lose"])
async def test_a_deploy_that_ends_anywhere_is_ended_by_the_same_call_again(
    dispatcher: InProcess,
    once: "DagServiceAsyncStub",
    monkeypatch: pytest.MonkeyPatch,
    what: Literal["cut", "lose"],
) -> None:
    """One transaction later each time, up to the one that makes it active, and to the first that clears away."""
    request = _request(CHAIN)
    for at in range(1, ACTIVE + 1):
        _interrupt(monkeypatch, at, what)
        assert await _refusal(once, request) in {"UNAVAILABLE", "OUTCOME_UNKNOWN"}
        if at < ACTIVE or what == "cut":
            await _nothing_is_seen(dispatcher)
    _interrupt(monkeypatch, ACTIVE + 1 if what == "cut" else 2, what)
    assert await _refusal(once, request) in {"UNAVAILABLE", "OUTCOME_UNKNOWN"}
    assert await dispatcher.rows(COMPOSITION) == WHOLE
    response = await dispatcher.dags.DeployDag(request)
    assert response.unchanged
    assert await dispatcher.rows(COMPOSITION) == WHOLE
    for table, count in {"dag_version": 1, "job_version": 3, "dataset_version": 3, "input_binding": 2}.items():
        assert await dispatcher.value(f"select count(*) from {table}") == count, table
    assert await dispatcher.value("select count(*) from audit") == 1


async def test_what_was_left_unfinished_owns_no_dataset(
    dispatcher: InProcess, once: "DagServiceAsyncStub", monkeypatch: pytest.MonkeyPatch
) -> None:
    await _leave_unfinished(once, monkeypatch, CHAIN)
    rival = CHAIN.replace("dag: chain", "dag: rival").replace("copies: {schema", "COPIES: {schema")
    await dispatcher.deploy(rival)
    assert await _refusal(once, _request(CHAIN)) == "DATASET_OWNED"
    assert await dispatcher.rows("select dag, dataset_id from dataset order by folded_id") == [
        ("rival", "blocks"),
        ("rival", "COPIES"),
        ("rival", "ranges"),
    ]


async def test_what_was_left_unfinished_gets_no_tasks(
    dispatcher: InProcess, once: "DagServiceAsyncStub", monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both documents have the same source: its version is taken up again, with the dataset version of the former."""
    await _leave_unfinished(once, monkeypatch, CHAIN)
    await dispatcher.deploy(OTHER)
    source = await start_source(dispatcher)
    await source.publish([1])
    assert await dispatcher.value("select count(*) from job_version where job = 'blocks'") == 1
    assert await dispatcher.value("select count(*) from job_version where job = 'ranges'") == 2
    jobs = await dispatcher.rows("select j.job from task t join job_version j using (job_version_id) order by j.job")
    assert jobs == [("blocks",), ("copies",), ("ranges",)]


async def test_writers_of_one_dataset_meet_in_one_version_whatever_was_left_unfinished(
    dispatcher: InProcess, once: "DagServiceAsyncStub", monkeypatch: pytest.MonkeyPatch
) -> None:
    """`right` is the same in both documents; but what it was to write to was to be shared with another `left`."""
    await _leave_unfinished(once, monkeypatch, SHARED)
    await dispatcher.deploy(
        SHARED.replace("left: {operator: splitter", "left: {operator: aggregator, config: {size: 9}")
    )
    outputs = await dispatcher.rows(
        "select j.job, o.dataset_version_id = p.dataset_version_id from dag_version_job s"
        " join dag d on d.active_version_id = s.dag_version_id join job_version j using (job_version_id)"
        " join job_output o using (job_version_id) join dataset_version v using (dataset_version_id)"
        " join pointer p using (dataset_id) order by j.job"
    )
    assert outputs == [("blocks", True), ("left", True), ("right", True)]


@pytest.mark.races
@pytest.mark.parametrize("at", range(2, ACTIVE + 1))
async def test_a_deploy_that_is_overtaken_answers_what_is_active(
    dispatcher: InProcess, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    """The other one clears away what the first has written, before it goes on."""
    interruption = _interrupt(monkeypatch, at, "stop")
    slow = asyncio.ensure_future(dispatcher.dags.DeployDag(_request(CHAIN)))
    async with asyncio.timeout(DEADLINE):
        await interruption.reached.wait()
    quick = await dispatcher.dags.DeployDag(_request(CHAIN))
    assert await dispatcher.value("select count(*) from dag_version") == 1
    interruption.go_on.set()
    response = await slow
    assert (quick.unchanged, response.unchanged) == (False, True)
    assert response.deployment == quick.deployment
    assert await dispatcher.rows(COMPOSITION) == WHOLE


@pytest.mark.races
async def test_a_deploy_that_is_overtaken_while_it_begins_leaves_nothing(
    dispatcher: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has found nothing active; when it owns the DAG, something is."""
    insert_dag = store.insert_dag

    async def deploy_first(*arguments: Any) -> None:
        monkeypatch.setattr(store, "insert_dag", insert_dag)
        await dispatcher.deploy(CHAIN)
        await insert_dag(*arguments)

    monkeypatch.setattr(store, "insert_dag", deploy_first)
    assert (await dispatcher.dags.DeployDag(_request(CHAIN))).unchanged
    assert await dispatcher.value("select count(*) from dag_version") == 1


@pytest.mark.races
async def test_a_whole_build_does_not_replace_what_went_active_since_it_was_begun(
    dispatcher: InProcess, once: "DagServiceAsyncStub", monkeypatch: pytest.MonkeyPatch
) -> None:
    """The faster one has not cleared it away yet: what was active when it was begun is asked too."""
    interruption = _interrupt(monkeypatch, ACTIVE, "stop")
    slow = asyncio.ensure_future(once.DeployDag(_request(OTHER)))
    async with asyncio.timeout(DEADLINE):
        await interruption.reached.wait()
    with monkeypatch.context() as patched:
        patched.setattr(deploying, "clear_leftovers", _die)
        assert await _refusal(once, _request(CHAIN)) == "UNAVAILABLE"
    interruption.go_on.set()
    assert (await slow).deployment.state == DEPLOYMENT_STATE_BUILDING, "it is a change now, built beside it"
    assert await dispatcher.rows(COMPOSITION) == WHOLE


@pytest.mark.races
async def test_of_two_documents_of_one_dag_at_once_one_is_deployed_whole(dispatcher: InProcess) -> None:
    answers = await asyncio.gather(*(dispatcher.dags.DeployDag(_request(document)) for document in (CHAIN, OTHER)))
    states = sorted(answer.deployment.state for answer in answers)
    assert states == [DEPLOYMENT_STATE_BUILDING, DEPLOYMENT_STATE_ACTIVE], "the later one is a change to the other"
    assert await dispatcher.rows(COMPOSITION) == WHOLE
    unfinished = "select count(*) from dag_version where state = 'building' and staged_at is null"
    assert await dispatcher.value(unfinished) == 0


@pytest.mark.races
async def test_what_a_dag_reads_moves_while_it_is_deployed(
    dispatcher: InProcess, once: "DagServiceAsyncStub", monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was checked and bound to the former version, so it is not deployed; the next call finds the new one."""
    await dispatcher.deploy(CHAIN)
    activate = deploying._stage

    async def move_and_activate(*arguments: Any) -> Any:
        await dispatcher.run(MOVE)
        return await activate(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(deploying, "_stage", move_and_activate)
        assert await _refusal(once, _request(READER)) == "UNAVAILABLE"
    await dispatcher.deploy(READER)
    assert await dispatcher.value(
        "select u.input_version_id = p.dataset_version_id from subscription u join job_version j using (job_version_id)"
        " join pointer p on p.dataset_id = 'blocks' where j.job = 'echo'"
    )
