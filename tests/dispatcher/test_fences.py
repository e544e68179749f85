"""Attempts that must stop without being at fault: their job version was taken back, or their worker gives them up."""

import uuid

import pytest

from tests.dispatcher.builders import Source, Worker, at, event, success, verdict
from tests.dispatcher.in_process import InProcess
from traceapi.control.v1 import task_service_pb2 as tasks
from traceapi.types.v1.task_pb2 import AttemptOutcome, StreamLease, TaskLease
from traceapi.worker.v1 import worker_service_pb2 as pb
from traceapi.worker.v1.completion_pb2 import CompleteItem, TaskCanceled, TaskReturned
from traceapi.worker.v1.emit_pb2 import EmitItem

TAKE_BACK = "update job_version_run set run_state = 'superseded', epoch = epoch + 1"
RESTORE = "update job_version_run set run_state = 'running', epoch = epoch + 1"


@pytest.fixture
async def task_id(dispatcher: InProcess, source: Source) -> str:
    await source.publish([1])
    await dispatcher.release()
    return await dispatcher.task_of("chain", "copies", 1)


def returned(lease: TaskLease, stream: StreamLease | None = None) -> CompleteItem:
    return CompleteItem(lease=lease, stream=stream, returned=TaskReturned(message="the worker stops"))


def canceled(lease: TaskLease, stream: StreamLease | None = None) -> CompleteItem:
    return CompleteItem(lease=lease, stream=stream, canceled=TaskCanceled(message="it stopped"))


async def _counts(dispatcher: InProcess, task_id: str) -> tuple[str, int, int]:
    ((state, failed, lost),) = await dispatcher.rows(
        "select state::text, failed_attempts, lost_leases from task where task_id = %s", task_id
    )
    return state, failed, lost


async def test_a_returned_task_is_queued_again_at_once_and_charged_with_nothing(
    dispatcher: InProcess, task_id: str
) -> None:
    worker = Worker(dispatcher)
    lease = worker.lease(await worker.claim_one(task_id))
    assert await worker.complete(returned(lease), returned(lease)) == ["queued", "queued"]
    assert await _counts(dispatcher, task_id) == ("queued", 0, 0)
    assert await worker.complete(success(lease)) == ["STALE_LEASE"]
    shown = await dispatcher.tasks.GetTask(tasks.GetTaskRequest(task_id=task_id))
    assert [(one.outcome, one.message) for one in shown.attempts] == [
        (AttemptOutcome.ATTEMPT_OUTCOME_RETURNED, "the worker stops")
    ]
    assert task_id in await dispatcher.release()
    assert (await worker.claim_one(task_id)).attempt == 2


async def test_a_returned_run_frees_its_stream(dispatcher: InProcess, source: Source) -> None:
    await source.publish([1, 2])
    await dispatcher.release()
    worker = Worker(dispatcher)
    run = await worker.claim_run(await dispatcher.task_of("chain", "ranges", 1))
    items = [returned(lease, run.stream) for lease in worker.leases(run)]
    assert await worker.complete(*items) == ["queued", "queued"]
    await dispatcher.release()
    again = await worker.claim_run(await dispatcher.task_of("chain", "ranges", 1))
    assert ([task.attempt for task in again.tasks], again.stream.epoch) == ([2, 2], 2)


async def test_an_attempt_from_before_a_take_back_stays_fenced_when_its_version_is_restored(
    dispatcher: InProcess, task_id: str
) -> None:
    worker = Worker(dispatcher)
    lease = worker.lease(await worker.claim_one(task_id))
    await dispatcher.run(TAKE_BACK)
    await dispatcher.run(RESTORE)
    (emitted,) = await worker.emit(EmitItem(tasks=[lease], events=[event("copies", at(1))]))
    assert verdict(emitted) == "TASK_CANCELED"
    assert await worker.complete(success(lease)) == ["TASK_CANCELED"]
    assert await worker.beat(pb.HeartbeatItem(lease=lease)) == ["cancel"]
    (fetched,) = (await dispatcher.worker.FetchTasks(pb.FetchTasksRequest(task_ids=[task_id]))).results
    assert fetched.task.canceled
    # It confirms; the task comes back for a new attempt, and nobody is blamed.
    assert await worker.complete(canceled(lease)) == ["queued"]
    assert await _counts(dispatcher, task_id) == ("queued", 0, 0)
    await dispatcher.release()
    second = worker.lease(await worker.claim_one(task_id))
    assert second.attempt == 2
    assert await worker.complete(success(second)) == ["succeeded"]


async def test_a_run_from_before_a_take_back_stays_fenced(dispatcher: InProcess, source: Source) -> None:
    await source.publish([1, 2])
    await dispatcher.release()
    worker = Worker(dispatcher)
    run = await worker.claim_run(await dispatcher.task_of("chain", "ranges", 1))
    await dispatcher.run(TAKE_BACK)
    await dispatcher.run(RESTORE)
    assert await worker.beat(pb.HeartbeatItem(lease=worker.leases(run)[0], stream=run.stream)) == ["cancel"]
    (emitted,) = await worker.emit(EmitItem(tasks=worker.leases(run), stream=run.stream))
    assert verdict(emitted) == "TASK_CANCELED"
    items = [canceled(lease, run.stream) for lease in worker.leases(run)]
    assert await worker.complete(*items) == ["queued", "queued"]


async def test_a_lease_that_runs_out_behind_the_fence_is_not_charged(dispatcher: InProcess, task_id: str) -> None:
    worker = Worker(dispatcher)
    await worker.claim_one(task_id)
    await dispatcher.run(TAKE_BACK)
    await dispatcher.expire()
    assert await _counts(dispatcher, task_id) == ("queued", 0, 0)


async def test_only_who_holds_the_attempt_confirms_that_it_stopped(dispatcher: InProcess, task_id: str) -> None:
    worker = Worker(dispatcher)
    await worker.claim_one(task_id)
    await dispatcher.run(TAKE_BACK)
    thief = TaskLease(task_id=task_id, attempt=1, lease_token=b"t" * 32)
    assert await worker.complete(canceled(thief), returned(thief)) == ["TASK_CANCELED", "TASK_CANCELED"]
    assert (await _counts(dispatcher, task_id))[0] == "running"


async def test_a_stop_is_confirmed_also_when_no_active_version_has_the_job(dispatcher: InProcess, task_id: str) -> None:
    worker = Worker(dispatcher)
    lease = worker.lease(await worker.claim_one(task_id))
    await dispatcher.run(TAKE_BACK)
    await dispatcher.run("update dag set active_version_id = null")
    assert await worker.complete(canceled(lease)) == ["queued"]


@pytest.mark.parametrize("job", ["copies", "ranges"])
async def test_a_claim_that_is_repeated_after_its_version_went_is_answered(
    dispatcher: InProcess, source: Source, job: str
) -> None:
    await source.publish([1])
    await dispatcher.release()
    worker, request_id = Worker(dispatcher), str(uuid.uuid4())
    task_id = await dispatcher.task_of("chain", job, 1)
    await worker.claim([task_id], request_id=request_id)
    await dispatcher.run(TAKE_BACK)
    await dispatcher.run("update dag set active_version_id = null")
    again = await worker.claim([task_id], request_id=request_id)
    assert verdict(again.results[0]) == "TASK_CANCELED"
    assert not again.runs
