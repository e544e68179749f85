"""How far an attempt is: told by heartbeats, of tasks of their own and of tasks of runs, and shown to people."""

from tests.dispatcher.builders import Source, Worker, failure
from tests.dispatcher.in_process import InProcess
from traceapi.control.v1.task_service_pb2 import GetTaskRequest
from traceapi.types.v1.task_pb2 import Progress, TaskLease
from traceapi.worker.v1.worker_service_pb2 import HeartbeatItem, TaskRun

HALF = Progress(done=1, total=2, unit="rows", message="the first of them")


async def _progress(dispatcher: InProcess, lease: TaskLease) -> Progress:
    return (await dispatcher.tasks.GetTask(GetTaskRequest(task_id=lease.task_id))).task.progress


async def _run(dispatcher: InProcess, source: Source, worker: Worker) -> TaskRun:
    await source.publish([1, 2])
    await dispatcher.release()
    return await worker.claim_run(await dispatcher.task_of("chain", "ranges", 1))


async def test_a_beat_tells_how_far_a_task_is(dispatcher: InProcess, source: Source) -> None:
    await source.publish([1])
    await dispatcher.release()
    worker = Worker(dispatcher)
    lease = worker.lease(await worker.claim_one(await dispatcher.task_of("chain", "copies", 1)))
    assert await worker.beat(HeartbeatItem(lease=lease, progress=HALF)) == ["continue"]
    assert await worker.beat(HeartbeatItem(lease=lease)) == ["continue"]
    assert await _progress(dispatcher, lease) == HALF, "no news changes nothing"
    await worker.complete(failure(lease))
    assert await _progress(dispatcher, lease) == Progress()


async def test_a_beat_of_a_run_tells_how_far_the_task_is_that_it_names(dispatcher: InProcess, source: Source) -> None:
    worker = Worker(dispatcher)
    run = await _run(dispatcher, source, worker)
    first, second = worker.leases(run)
    assert await worker.beat(HeartbeatItem(lease=second, stream=run.stream, progress=HALF)) == ["continue"]
    assert [await _progress(dispatcher, lease) for lease in (first, second)] == [Progress(), HALF]
    assert await worker.beat(HeartbeatItem(lease=first, stream=run.stream)) == ["continue"]
    assert await _progress(dispatcher, second) == HALF, "no news changes nothing"
    await worker.complete(*[failure(lease, run.stream) for lease in (first, second)])
    assert await _progress(dispatcher, second) == Progress()


async def test_nothing_is_told_of_another_attempt_nor_by_a_former_holder(dispatcher: InProcess, source: Source) -> None:
    worker = Worker(dispatcher)
    run = await _run(dispatcher, source, worker)
    lease = worker.leases(run)[0]
    other = TaskLease(task_id=lease.task_id, attempt=lease.attempt + 1, lease_token=lease.lease_token)
    assert await worker.beat(HeartbeatItem(lease=other, stream=run.stream, progress=HALF)) == ["continue"]
    assert await _progress(dispatcher, lease) == Progress()
    await dispatcher.expire()
    await dispatcher.release()
    await Worker(dispatcher, "worker-2").claim_run(lease.task_id)
    assert await worker.beat(HeartbeatItem(lease=lease, stream=run.stream, progress=HALF)) == ["lease_lost"]
    assert await _progress(dispatcher, lease) == Progress()
