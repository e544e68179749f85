"""Of a DAG of which nothing is active it is said why, and what to do; never that it is not there."""

import re
from collections.abc import Awaitable, Callable

import grpc
import pytest
from google.protobuf.message import Message

from kernel.errors import TraceError, from_rpc_error
from kernel.ids import new_id
from tests.dispatcher.changing import CHANGED, PIPELINE, TUNED, deploy, state, watch
from tests.dispatcher.in_process import InProcess
from traceapi.control.v1 import change_pb2
from traceapi.control.v1 import dag_service_pb2 as pb

CALLS: list[tuple[str, Message]] = [
    ("GetDag", pb.GetDagRequest(dag="chain")),
    ("RollbackDag", pb.RollbackDagRequest(dag="chain", request_id=new_id())),
    ("PauseDag", pb.PauseDagRequest(dag="chain")),
    ("ResumeDag", pb.ResumeDagRequest(dag="chain")),
    ("RemoveDag", pb.RemoveDagRequest(dag="chain")),
]


async def _refusal(dispatcher: InProcess, name: str, request: Message) -> TraceError:
    call: Callable[[Message], Awaitable[object]] = getattr(dispatcher.dags, name)
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call(request)
    return from_rpc_error(raised.value)


async def _states(dispatcher: InProcess) -> list[str]:
    """Of its versions, newest first."""
    history = await dispatcher.dags.ListDagHistory(pb.ListDagHistoryRequest(dag="chain"))
    return [state(deployment) for deployment in history.deployments]


async def _remove(dispatcher: InProcess) -> None:
    await dispatcher.dags.RemoveDag(pb.RemoveDagRequest(dag="chain"))


@pytest.mark.parametrize(("name", "request_"), CALLS, ids=[name for name, _ in CALLS])
async def test_that_it_was_removed_by_whom_and_when(dispatcher: InProcess, name: str, request_: Message) -> None:
    await dispatcher.deploy(PIPELINE)
    await _remove(dispatcher)
    error = await _refusal(dispatcher, name, request_)
    assert (error.reason_name, error.code) == ("DAG_NOT_ACTIVE", grpc.StatusCode.NOT_FOUND)
    said = r"chain was removed on \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC by user:tester; deploy it again"
    assert re.match(said, error.message), error.message
    recorded = [row[0] for row in await dispatcher.rows("select action from audit where outcome = 'refused'")]
    assert recorded == ([] if name == "GetDag" else [recorded[0]])


async def test_its_versions_and_changes_are_still_listed(dispatcher: InProcess) -> None:
    await dispatcher.deploy(PIPELINE)
    await _remove(dispatcher)
    assert await _states(dispatcher) == ["removed"]
    changes = await dispatcher.dags.ListDagChanges(change_pb2.ListDagChangesRequest(dag="chain"))
    assert [change.action for change in changes.changes] == [
        change_pb2.AUDIT_ACTION_REMOVE,
        change_pb2.AUDIT_ACTION_DEPLOY,
    ]


async def test_what_was_served_last_is_the_removed_version_until_another_one_takes_its_place(
    dispatcher: InProcess,
) -> None:
    first = await dispatcher.deploy(PIPELINE)
    await deploy(dispatcher, TUNED)
    await _remove(dispatcher)
    assert await _states(dispatcher) == ["removed", "replaced"]
    assert state((await watch(dispatcher, first)).deployment) == "replaced"
    building = await deploy(dispatcher, CHANGED, hold=True)
    assert await _states(dispatcher) == ["building", "removed", "replaced"]
    await dispatcher.dags.AbortDeployment(pb.AbortDeploymentRequest(deployment_id=building.deployment_id))
    await deploy(dispatcher, TUNED)
    assert (await _states(dispatcher))[1:] == ["aborted", "replaced", "replaced"]


async def test_that_it_is_being_built_again(dispatcher: InProcess) -> None:
    await dispatcher.deploy(PIPELINE)
    await _remove(dispatcher)
    await deploy(dispatcher, CHANGED)
    error = await _refusal(dispatcher, *CALLS[1])
    assert error.message.endswith("by user:tester, and a version of it is being built")


async def test_that_its_first_version_is_being_built_or_was_given_up(dispatcher: InProcess) -> None:
    held = await deploy(dispatcher, PIPELINE, hold=True)
    assert "its first version is being built" in (await _refusal(dispatcher, *CALLS[0])).message
    await dispatcher.dags.AbortDeployment(pb.AbortDeploymentRequest(deployment_id=held.deployment_id))
    error = await _refusal(dispatcher, *CALLS[0])
    assert (error.reason_name, "were given up" in error.message) == ("DAG_NOT_ACTIVE", True)


async def test_that_nothing_is_called_so_where_only_a_removed_one_is_alike(dispatcher: InProcess) -> None:
    await dispatcher.deploy(PIPELINE)
    await _remove(dispatcher)
    error = await _refusal(dispatcher, "GetDag", pb.GetDagRequest(dag="chian"))
    assert (error.reason_name, "did you mean" in error.message) == ("DAG_NOT_FOUND", False)
