"""How attempts end: once, with the answer that a repetition gets too."""

import uuid

import pytest

from tests.dispatcher.builders import Source, Worker, at, failure, success
from tests.dispatcher.in_process import InProcess
from traceapi.control.v1 import task_service_pb2 as tasks
from traceapi.types.v1.task_pb2 import AttemptOutcome, ErrorClass, TaskLease
from traceapi.worker.v1 import worker_service_pb2 as pb


@pytest.fixture
async def task_id(dispatcher: InProcess, source: Source) -> str:
    await source.publish([1])
    return await dispatcher.task_of("chain", "copies", 1)


async def _claim(dispatcher: InProcess, task_id: str) -> tuple[Worker, TaskLease]:
    worker = Worker(dispatcher)
    await dispatcher.release()
    return worker, worker.lease(await worker.claim_one(task_id))


async def _get(dispatcher: InProcess, task_id: str) -> tasks.GetTaskResponse:
    return await dispatcher.tasks.GetTask(tasks.GetTaskRequest(task_id=task_id))


async def test_a_repeated_success_gets_the_first_answer(dispatcher: InProcess, task_id: str) -> None:
    worker, lease = await _claim(dispatcher, task_id)
    assert await worker.complete(success(lease), success(lease)) == ["succeeded", "succeeded"]
    assert await worker.complete(success(lease)) == ["succeeded"]
    assert await worker.complete(failure(lease)) == ["STALE_LEASE"]
    shown = await _get(dispatcher, task_id)
    assert [attempt.outcome for attempt in shown.attempts] == [AttemptOutcome.ATTEMPT_OUTCOME_SUCCEEDED]


async def test_a_repeated_failure_gets_the_first_answer_whatever_came_after(
    dispatcher: InProcess, task_id: str
) -> None:
    worker, lease = await _claim(dispatcher, task_id)
    assert await worker.complete(failure(lease)) == ["backoff"]
    await dispatcher.end_backoffs()
    _, second = await _claim(dispatcher, task_id)
    assert second.attempt == 2
    assert await worker.complete(failure(lease)) == ["backoff"]
    assert await dispatcher.value("select failed_attempts from task where task_id = %s", task_id) == 1


async def test_failures_wait_longer_each_time_and_then_the_task_is_dead(dispatcher: InProcess, task_id: str) -> None:
    waits = []
    for attempt in (1, 2, 3):
        worker, lease = await _claim(dispatcher, task_id)
        (state,) = await worker.complete(failure(lease, message=f"broke {attempt}", traceback=f"Traceback {attempt}"))
        waits.append(
            await dispatcher.value(
                "select t.retry_at - a.ended_at from task t join attempt a using (task_id, attempt) where task_id = %s",
                task_id,
            )
        )
        await dispatcher.end_backoffs()
    assert state == "dead"
    assert waits[2] is None
    assert waits[1] > waits[0]  # from 0.5 to 1 s, and from 1 to 2 s
    shown = await _get(dispatcher, task_id)
    assert shown.task.reason == "3 attempts failed in its code; the last: broke 3"
    assert [attempt.failure.traceback for attempt in shown.attempts] == ["Traceback 1", "Traceback 2", "Traceback 3"]
    assert {attempt.failure.error_class for attempt in shown.attempts} == {ErrorClass.ERROR_CLASS_USER}


async def test_failures_are_counted_by_class(dispatcher: InProcess, source: Source, task_id: str) -> None:
    """Of each class alone, and of all together; from the beginning once a person has retried the task."""
    await dispatcher.run("update dag_version_job set max_attempts = 5")

    async def states(*classes: str) -> list[str]:
        found = []
        for name in classes:
            worker, lease = await _claim(dispatcher, task_id)
            found += await worker.complete(failure(lease, error_class=ErrorClass.Value(f"ERROR_CLASS_{name}")))
            await dispatcher.end_backoffs()
        return found

    assert await states("USER", "OUT_OF_MEMORY", "USER", "OUT_OF_MEMORY") == ["backoff"] * 3 + ["dead"]
    await dispatcher.tasks.RetryTasks(tasks.RetryTasksRequest(filter=tasks.TaskFilter(task_ids=[task_id])))
    assert await states("OUT_OF_MEMORY", "USER", "USER", "USER") == ["backoff"] * 3 + ["dead"]
    assert (await _get(dispatcher, task_id)).task.reason.startswith("3 attempts failed in its code")
    await dispatcher.tasks.RetryTasks(tasks.RetryTasksRequest(filter=tasks.TaskFilter(task_ids=[task_id])))
    assert await states(*["TRANSIENT"] * 5) == ["backoff"] * 4 + ["dead"]
    assert (await _get(dispatcher, task_id)).task.reason.startswith("5 attempts failed;")


async def test_a_dead_task_is_retried_by_filter(dispatcher: InProcess, source: Source, task_id: str) -> None:
    await source.publish([2])
    for number in (1, 2):
        worker, lease = await _claim(dispatcher, await dispatcher.task_of("chain", "copies", number))
        await worker.complete(failure(lease, error_class=ErrorClass.ERROR_CLASS_INVALID_OUTPUT))
    one = tasks.TaskFilter(dag="chain", scope=at(1))
    assert (await dispatcher.tasks.RetryTasks(tasks.RetryTasksRequest(filter=one))).task_count == 1
    assert await dispatcher.rows("select scope_first from task where state = 'dead'") == [
        ((2 + 2**63).to_bytes(8, "big"),)
    ]
    assert (await dispatcher.tasks.RetryTasks(tasks.RetryTasksRequest(filter=one))).task_count == 0
    _, lease = await _claim(dispatcher, task_id)
    assert lease.attempt == 2


async def test_an_output_that_breaks_a_declaration_is_dead_at_once(dispatcher: InProcess, task_id: str) -> None:
    worker, lease = await _claim(dispatcher, task_id)
    broken = failure(lease, error_class=ErrorClass.ERROR_CLASS_INVALID_OUTPUT)
    assert await worker.complete(broken) == ["dead"]


async def test_a_traceback_with_a_zero_byte_is_kept(dispatcher: InProcess, task_id: str) -> None:
    worker, lease = await _claim(dispatcher, task_id)
    assert await worker.complete(failure(lease, message="\0", traceback="a\0b")) == ["backoff"]
    assert (await _get(dispatcher, task_id)).attempts[0].failure.traceback == "a\N{REPLACEMENT CHARACTER}b"


async def test_lost_leases_have_a_limit_of_their_own(dispatcher: InProcess, task_id: str) -> None:
    for _ in range(10):
        await _claim(dispatcher, task_id)
        await dispatcher.run("update task set lease_until = clock_timestamp() where task_id = %s", task_id)
        assert await dispatcher.reap() == 1
    state, reason, failed, lost = (
        await dispatcher.rows(
            "select state::text, reason, failed_attempts, lost_leases from task where task_id = %s", task_id
        )
    )[0]
    assert (state, failed, lost) == ("dead", 0, 10)
    assert reason.startswith("10 leases were lost")


async def test_a_crash_between_emit_and_complete_shows_what_was_accepted(
    dispatcher: InProcess, source: Source, task_id: str
) -> None:
    await source.publish([2])
    await dispatcher.run("update task set lease_until = clock_timestamp() where origin = 'source_run'")
    await dispatcher.reap()
    await dispatcher.release()
    worker = Worker(dispatcher)
    again = await worker.claim_one(source.lease.task_id)
    assert (again.attempt, again.accepted_event_count) == (2, 2)
    assert (again.state.data, again.state.version) == (b"2", 2)


async def test_a_source_that_makes_progress_is_forgiven_its_failures(dispatcher: InProcess, source: Source) -> None:
    await source.worker.complete(failure(source.lease))
    await dispatcher.end_backoffs()
    worker, lease = await _claim(dispatcher, source.lease.task_id)
    counts = "select failed_attempts from task where origin = 'source_run'"
    assert await dispatcher.value(counts) == 1
    await Source(worker, lease).publish([1])
    assert await dispatcher.value(counts) == 0


async def test_completions_of_one_call_answer_for_themselves(dispatcher: InProcess, task_id: str) -> None:
    worker, lease = await _claim(dispatcher, task_id)
    unknown = TaskLease(task_id=str(uuid.uuid4()), attempt=1, lease_token=worker.token)
    assert await worker.complete(success(unknown), success(lease)) == ["TASK_NOT_FOUND", "succeeded"]


async def test_heartbeats_extend_cancel_and_tell_of_loss_by_lease(
    dispatcher: InProcess, source: Source, task_id: str
) -> None:
    worker, lease = await _claim(dispatcher, task_id)
    await dispatcher.run("update task set lease_until = clock_timestamp() where task_id = %s", task_id)
    await dispatcher.reap()
    await dispatcher.release()
    current = worker.lease(await worker.claim_one(task_id))
    beats = [pb.HeartbeatItem(lease=item) for item in (lease, current, source.lease)]
    # A worker may hold a lost attempt and the current one of the same task; the source's lease has another token.
    assert await worker.beat(*beats) == ["lease_lost", "continue", "continue"]
    await dispatcher.run(
        "update job_version_run set run_state = 'rolled_back'"
        " where job_version_id = (select job_version_id from task where task_id = %s)",
        task_id,
    )
    assert await worker.beat(*beats) == ["cancel", "cancel", "continue"]


async def test_a_heartbeat_brings_progress(dispatcher: InProcess, task_id: str) -> None:
    worker, lease = await _claim(dispatcher, task_id)
    beat = pb.HeartbeatItem(lease=lease)
    beat.progress.done, beat.progress.unit = 3, "rows"
    assert await worker.beat(beat, pb.HeartbeatItem(lease=lease)) == ["continue", "continue"]
    assert (await _get(dispatcher, task_id)).task.progress.done == 3


async def test_an_expired_lease_is_not_extended(dispatcher: InProcess, task_id: str) -> None:
    worker, lease = await _claim(dispatcher, task_id)
    await dispatcher.run("update task set lease_until = clock_timestamp() where task_id = %s", task_id)
    assert await worker.beat(pb.HeartbeatItem(lease=lease)) == ["lease_lost"]
