"""A look at a deployment that is settled says how it ended."""

import pytest

from dispatcher.db.rows import Connection
from dispatcher.deploy import store
from tests.dispatcher.builders import start_source
from tests.dispatcher.changing import PIPELINE
from tests.dispatcher.in_process import InProcess
from traceapi.control.v1 import dag_service_pb2 as pb
from traceapi.types.v1.task_pb2 import TaskState


async def test_of_what_is_settled_every_task_is_counted_as_it_ended(
    dispatcher: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its last task ends while somebody looks: who waits for a deploy tells by the counts how it went."""
    await dispatcher.deploy(PIPELINE)
    source = await start_source(dispatcher)
    await source.publish([1])
    unfinished = store.unfinished

    async def meanwhile_all_end(connection: Connection, dag_version_id: str) -> bool:
        await dispatcher.run(
            "update task set state = 'dead', reason = 'x', finished_at = clock_timestamp(), lease_until = null,"
            " lease_token_digest = null, worker_id = null, claim_request_id = null, released_at = null"
        )
        return await unfinished(connection, dag_version_id)

    monkeypatch.setattr(store, "unfinished", meanwhile_all_end)
    (deployment_id,) = (await dispatcher.rows("select dag_version_id::text from dag_version"))[0]
    async for response in dispatcher.dags.WatchDeployment(pb.WatchDeploymentRequest(deployment_id=deployment_id)):
        assert response.settled
        counted = {count.state for job in response.deployment.jobs for count in job.task_counts if count.count}
        assert counted == {TaskState.TASK_STATE_DEAD}
        return
