"""Leases of tasks of their own: who gets one, who hears why not, and what a repeated call is answered."""

import uuid

import pytest

from tests.dispatcher.builders import Source, Worker, failure, success, verdict
from tests.dispatcher.in_process import InProcess
from traceapi.control.v1 import dag_service_pb2, task_service_pb2


@pytest.fixture
async def task_id(dispatcher: InProcess, source: Source) -> str:
    """A released task of the job `copies`."""
    await source.publish([1])
    await dispatcher.release()
    return await dispatcher.task_of("chain", "copies", 1)


async def _refusal(worker: Worker, task_id: str) -> str:
    return verdict((await worker.claim([task_id])).results[0])


async def test_a_repeated_claim_answers_the_same_attempt(dispatcher: InProcess, task_id: str) -> None:
    worker, request_id = Worker(dispatcher), str(uuid.uuid4())
    first = await worker.claim([task_id], request_id=request_id)
    again = await worker.claim([task_id], request_id=request_id.upper())
    assert first == again
    assert first.results[0].claimed.attempt == 1
    assert [job.job for job in first.jobs] == ["copies"]
    assert await dispatcher.value("select attempt from task where task_id = %s", task_id) == 1


async def test_a_claim_that_arrives_again_after_its_attempt_makes_no_further_one(
    dispatcher: InProcess, task_id: str
) -> None:
    """Who sent it has gone: the attempt would be nobody's, and hold the task until its lease ends."""
    worker, late, other = Worker(dispatcher), str(uuid.uuid4()), str(uuid.uuid4())
    for request_id in (late, other):
        await worker.claim([task_id], request_id=request_id)
        await dispatcher.expire()
        await dispatcher.release()
    again = [await worker.claim([task_id], request_id=request_id) for request_id in (late, other)]
    assert [verdict(response.results[0]) for response in again] == ["STALE_LEASE", "STALE_LEASE"]
    assert (await worker.claim_one(task_id)).attempt == 3


async def test_a_claim_of_a_run_that_arrives_again_after_its_attempts_makes_no_further_ones(
    dispatcher: InProcess, source: Source, task_id: str
) -> None:
    worker, request_id = Worker(dispatcher), str(uuid.uuid4())
    head = await dispatcher.task_of("chain", "ranges", 1)
    assert (await worker.claim([head], request_id=request_id)).runs
    await dispatcher.expire()
    await dispatcher.release()
    late = await worker.claim([head], request_id=request_id)
    assert (verdict(late.results[0]), list(late.runs)) == ("TASK_NOT_READY", [])
    assert [task.attempt for task in (await worker.claim_run(head)).tasks] == [2]


async def test_a_claim_carries_the_event_its_scope_and_what_inputs_are_at(
    dispatcher: InProcess, source: Source, task_id: str
) -> None:
    await source.publish([2])
    claimed = await Worker(dispatcher).claim_one(task_id)
    assert claimed.event.dataset_id == "blocks"
    assert claimed.scope == claimed.event.scope
    assert claimed.scope.cursor.int64_value == 1
    assert claimed.event.publication_number == 1
    assert [(pin.dataset_id, pin.publication_number) for pin in claimed.pins] == [("blocks", 2)]


async def test_every_attempt_reads_its_inputs_at_the_first_ones_state(
    dispatcher: InProcess, source: Source, task_id: str
) -> None:
    worker = Worker(dispatcher)
    first = await worker.claim_one(task_id)
    await source.publish([2])
    await dispatcher.run("update task set lease_until = clock_timestamp() where task_id = %s", task_id)
    await dispatcher.reap()
    await dispatcher.release()
    second = await worker.claim_one(task_id)
    assert (first.attempt, second.attempt) == (1, 2)
    assert list(second.pins) == list(first.pins)


async def test_a_request_id_belongs_to_one_token(dispatcher: InProcess, task_id: str) -> None:
    request_id = str(uuid.uuid4())
    await Worker(dispatcher).claim([task_id], request_id=request_id)
    thief = await Worker(dispatcher).claim([task_id], request_id=request_id)
    assert verdict(thief.results[0]) == "REQUEST_ID_REUSED"


async def test_a_claimed_task_is_taken_also_for_its_own_worker(dispatcher: InProcess, task_id: str) -> None:
    worker = Worker(dispatcher)
    await worker.claim_one(task_id)
    assert await _refusal(worker, task_id) == "TASK_TAKEN"
    assert await _refusal(Worker(dispatcher), task_id) == "TASK_TAKEN"


async def test_an_expired_lease_is_nobodys_until_it_is_taken_back(dispatcher: InProcess, task_id: str) -> None:
    await Worker(dispatcher).claim_one(task_id)
    await dispatcher.run("update task set lease_until = clock_timestamp() where task_id = %s", task_id)
    assert await _refusal(Worker(dispatcher), task_id) == "TASK_TAKEN"


async def test_a_wakeup_that_was_not_sent_is_no_right(dispatcher: InProcess, source: Source) -> None:
    await source.publish([1])
    assert await _refusal(Worker(dispatcher), await dispatcher.task_of("chain", "copies", 1)) == "TASK_NOT_READY"


async def test_a_task_in_backoff_is_not_ready(dispatcher: InProcess, task_id: str) -> None:
    worker = Worker(dispatcher)
    await worker.complete(failure(worker.lease(await worker.claim_one(task_id))))
    assert await _refusal(worker, task_id) == "TASK_NOT_READY"


async def test_a_finished_task_is_finished(dispatcher: InProcess, task_id: str) -> None:
    worker = Worker(dispatcher)
    assert await worker.complete(success(worker.lease(await worker.claim_one(task_id)))) == ["succeeded"]
    assert await _refusal(worker, task_id) == "TASK_FINISHED"


async def test_an_unknown_task_does_not_exist(dispatcher: InProcess, task_id: str) -> None:
    response = await Worker(dispatcher).claim([str(uuid.uuid4()), task_id])
    assert [verdict(result) for result in response.results] == ["TASK_NOT_FOUND", "claimed"]


async def test_a_paused_job_hands_nothing_out_and_what_runs_may_finish(dispatcher: InProcess, source: Source) -> None:
    await source.publish([1, 2])
    await dispatcher.release()
    worker = Worker(dispatcher)
    running = await worker.claim_one(await dispatcher.task_of("chain", "copies", 1))
    await dispatcher.dags.PauseDag(dag_service_pb2.PauseDagRequest(dag="chain", jobs=["copies"]))
    assert await _refusal(worker, await dispatcher.task_of("chain", "copies", 2)) == "TASK_NOT_READY"
    assert await worker.complete(success(worker.lease(running))) == ["succeeded"]


async def test_a_task_of_a_fenced_job_version_is_cancelled(dispatcher: InProcess, task_id: str) -> None:
    await dispatcher.run("update job_version_run set run_state = 'superseded'")
    assert await _refusal(Worker(dispatcher), task_id) == "TASK_CANCELED"


async def test_get_task_shows_the_claim(dispatcher: InProcess, task_id: str) -> None:
    await Worker(dispatcher).claim_one(task_id)
    shown = await dispatcher.tasks.GetTask(task_service_pb2.GetTaskRequest(task_id=task_id))
    assert (shown.task.attempt, shown.task.worker_id) == (1, "worker-1")
    assert [attempt.attempt for attempt in shown.attempts] == [1]
    assert not shown.attempts[0].HasField("ended_time")
