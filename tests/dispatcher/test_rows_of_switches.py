"""What a rollback writes is counted before anything waits for it, with the build that it gives up."""

from collections.abc import Awaitable, Callable

import grpc
import pytest

from dispatcher.db.rows import Connection
from dispatcher.deploy import stages, store
from kernel.errors import TraceError, from_rpc_error
from kernel.ids import new_id
from tests.dispatcher.changing import CHANGED, PIPELINE, Fleet, deploy, roll_back, state
from tests.dispatcher.in_process import InProcess
from traceapi.control.v1 import dag_service_pb2 as pb

# Beside PIPELINE: a job of its own, which claims a dataset, and others of `copies` and `echo`.
BUILT = CHANGED.replace("+ 1", "+ 2") + (
    "  more: {operator: splitter, inputs: {blocks: {}}, outputs: {more: {storage: none}}}\n"
)


async def _refusal(call: Awaitable[object]) -> TraceError:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call
    return from_rpc_error(raised.value)


def _limit(monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    monkeypatch.setattr(stages, "MOST_SWITCHED", rows)


async def _switched(dispatcher: InProcess) -> None:
    """The second version is active."""
    await deploy(dispatcher, PIPELINE)
    await deploy(dispatcher, CHANGED)
    await Fleet(dispatcher).catch_up()
    assert (await dispatcher.dags.GetDag(pb.GetDagRequest(dag="chain"))).summary.version == 2


async def test_a_rollback_counts_both_versions(dispatcher: InProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of `copies` and `echo` each has a version of its own, with a trigger."""
    await _switched(dispatcher)
    _limit(monkeypatch, 7)
    error = await _refusal(roll_back(dispatcher))
    assert (error.reason_name, error.metadata["rows"]) == ("TOO_MANY_ROWS", "8")
    _limit(monkeypatch, 8)
    await roll_back(dispatcher)


async def test_a_rollback_counts_the_build_that_it_gives_up(
    dispatcher: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three jobs of its own with a trigger each, and the dataset that only it has claimed."""
    await _switched(dispatcher)
    building = await deploy(dispatcher, BUILT, hold=True)
    _limit(monkeypatch, 14)
    error = await _refusal(roll_back(dispatcher))
    assert (error.reason_name, error.metadata["rows"]) == ("TOO_MANY_ROWS", "15")
    assert "7 of them to give up what is being built, which `dag abort` does before" in error.message
    _limit(monkeypatch, 15)
    await roll_back(dispatcher)
    history = await dispatcher.dags.ListDagHistory(pb.ListDagHistoryRequest(dag="chain"))
    assert {each.version: state(each) for each in history.deployments}[building.version] == "aborted"


async def test_what_was_counted_is_what_is_there_under_the_locks(
    dispatcher: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A build is staged after the rows were counted, and with it there are too many: the call comes again by itself,
    and is refused."""
    await _switched(dispatcher)
    own: Callable[..., Awaitable[stages.Standing]] = stages.own_versions

    async def late(connection: Connection, dag: str) -> stages.Standing:
        monkeypatch.setattr(stages, "own_versions", own)
        _limit(monkeypatch, 100)
        await deploy(dispatcher, BUILT, hold=True)
        _limit(monkeypatch, 8)
        return await own(connection, dag)

    _limit(monkeypatch, 8)
    monkeypatch.setattr(stages, "own_versions", late)
    error = await _refusal(roll_back(dispatcher))
    assert (error.reason_name, error.metadata["rows"]) == ("TOO_MANY_ROWS", "15")
    assert await dispatcher.value("select staged_version_id from dag") is not None


async def test_what_ends_is_counted_for_a_version_that_shares_jobs(dispatcher: InProcess) -> None:
    await _switched(dispatcher)
    async with dispatcher.pool.connection() as connection:
        versions = [
            (await store.list_versions(connection, "chain", before, 1))[0].dag_version_id for before in (None, 2)
        ]
        assert await store.ended_rows(connection, versions[0], versions[1]) == 4
        assert await store.ended_rows(connection, versions[0], None) == 7
        assert await store.ended_rows(connection, new_id(), None) == 0
