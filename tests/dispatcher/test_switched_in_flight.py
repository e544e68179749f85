"""Two hundred tasks in work when their version is replaced, and when it is taken back: none of them gets anything in
any more, and none that both versions share is disturbed."""

import pytest

from tests.dispatcher.builders import Source, Worker, event, start_source, success, verdict
from tests.dispatcher.changing import CHANGED, PIPELINE, Fleet, deploy, missing, roll_back, served, state
from tests.dispatcher.in_process import InProcess
from traceapi.control.v1 import dag_service_pb2 as pb
from traceapi.worker.v1 import worker_service_pb2 as worker_pb
from traceapi.worker.v1.emit_pb2 import EmitItem

TASKS = 200


@pytest.fixture
async def source(dispatcher: InProcess) -> Source:
    await dispatcher.deploy(PIPELINE)
    return await start_source(dispatcher)


async def _in_work(dispatcher: InProcess, worker: Worker, job: str) -> list[worker_pb.ClaimedTask]:
    """All released tasks of a job, claimed."""
    rows = await dispatcher.rows(
        "select t.task_id::text from task t join job_version j using (job_version_id)"
        " join job_version_run r using (job_version_id)"
        " where t.state = 'released' and j.job = %s and r.run_state = 'running'",
        job,
    )
    response = await worker.claim([task_id for (task_id,) in rows])
    return [result.claimed for result in response.results]


async def _ends(
    worker: Worker, tasks: list[worker_pb.ClaimedTask], dataset: str
) -> tuple[set[str], set[str], set[str]]:
    """What heartbeats, emits and completions of all of them are answered."""
    leases = [worker.lease(task) for task in tasks]
    beats = await worker.beat(*(worker_pb.HeartbeatItem(lease=lease) for lease in leases))
    items = [
        EmitItem(tasks=[lease], events=[event(dataset, task.scope)]) for lease, task in zip(leases, tasks, strict=True)
    ]
    emitted = await worker.emit(*items)
    ended = await worker.complete(*(success(lease, 1) for lease in leases))
    return set(beats), {verdict(result) for result in emitted}, set(ended)


async def test_nothing_of_what_was_in_work_gets_in_and_nothing_shared_is_cancelled(
    dispatcher: InProcess, source: Source
) -> None:
    fleet, worker = Fleet(dispatcher), Worker(dispatcher)
    await source.publish(range(1, TASKS + 1))
    await dispatcher.release()
    old, shared = await _in_work(dispatcher, worker, "copies"), await _in_work(dispatcher, worker, "apart")
    building = await deploy(dispatcher, CHANGED, hold=True)
    await fleet.catch_up()
    over = await dispatcher.dags.CutOverDag(pb.CutOverDagRequest(deployment_id=building.deployment_id))
    assert (len(old), len(shared), state(over.deployment)) == (TASKS, TASKS, "active")
    assert await _ends(worker, old, "copies") == ({"cancel"}, {"TASK_CANCELED"}, {"TASK_CANCELED"})
    assert await _ends(worker, shared, "parts") == ({"continue"}, {"accepted"}, {"succeeded"})
    replaced = await served(dispatcher)

    await source.publish(range(TASKS + 1, 2 * TASKS + 1))
    await dispatcher.release()
    bad, shared = await _in_work(dispatcher, worker, "copies"), await _in_work(dispatcher, worker, "apart")
    await roll_back(dispatcher)
    assert (len(bad), len(shared)) == (TASKS, TASKS)
    assert await _ends(worker, bad, "copies") == ({"cancel"}, {"TASK_CANCELED"}, {"TASK_CANCELED"})
    assert await _ends(worker, shared, "parts") == ({"continue"}, {"accepted"}, {"succeeded"})
    assert (
        await dispatcher.value("select count(*) from event where dataset_version_id = %s", replaced["copies"]) == TASKS
    ), "of the version that was taken back stands what it made while it was active"

    await dispatcher.expire()  # those that were in work when their version was replaced are taken up again
    await fleet.catch_up()
    restored = (await served(dispatcher))["copies"]
    assert await dispatcher.value("select count(*) from event where dataset_version_id = %s", restored) == 2 * TASKS
    assert await missing(dispatcher) == 0
