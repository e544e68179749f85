"""A task with any number of attempts, such as the run of a source that fails again and again and makes progress."""

from datetime import timedelta

import pytest

from dispatcher.db.pool import transaction
from dispatcher.tasks.keeping import ATTEMPTS, Keeper, Keeping
from tests.dispatcher.builders import Source, Worker, failure
from tests.dispatcher.in_process import InProcess
from traceapi.control.v1.task_service_pb2 import GetTaskRequest, GetTaskResponse
from traceapi.types.v1 import task_pb2

KEEPING = Keeping(timedelta(), 30)
TRACEBACK = 65_536
SHOWN = 100

# So many attempts of a task, of which the first `old` ended so long ago; the next one runs or is yet to come.
FAILED = """
with made as (
    insert into attempt (
        task_id, attempt, worker_id, claim_request_id, lease_token_digest, started_at, ended_at, outcome, task_state,
        error_class, message, traceback
    )
    select %(task_id)s, n, 'w', gen_random_uuid(), 'x', now() - interval '99 days',
        case when n <= %(old)s then now() - %(ago)s::interval else now() end,
        'failed', 'backoff', 'user', 'it broke', repeat('x', %(traceback)s)
    from generate_series(1, %(attempts)s) n
)
update task set attempt = %(attempts)s + (state = 'running')::int where task_id = %(task_id)s
"""
KEPT = "select coalesce(min(attempt), 0) from attempt"


async def _fill(
    dispatcher: InProcess, task_id: str, attempts: int, *, old: int = 0, ago: str = "31 days", traceback: int = 0
) -> None:
    values = {"task_id": task_id, "attempts": attempts, "old": old, "ago": ago, "traceback": traceback}
    async with transaction(dispatcher.pool) as connection:
        await connection.execute(FAILED, values)


async def _shown(dispatcher: InProcess, task_id: str) -> GetTaskResponse:
    return await dispatcher.tasks.GetTask(GetTaskRequest(task_id=task_id))


async def test_a_task_with_thousands_of_long_tracebacks_is_shown(dispatcher: InProcess, source: Source) -> None:
    """All of them would be twice what one message may have."""
    await _fill(dispatcher, source.lease.task_id, 2_000, traceback=TRACEBACK)
    shown = await _shown(dispatcher, source.lease.task_id)
    assert [attempt.attempt for attempt in shown.attempts] == list(range(2_001 - SHOWN + 1, 2_002))
    assert shown.earlier_attempt_count == 2_001 - SHOWN
    assert len(shown.attempts[0].failure.traceback) == TRACEBACK
    assert shown.attempts[-1].outcome == task_pb2.ATTEMPT_OUTCOME_UNSPECIFIED, "it runs"


async def test_a_task_with_few_attempts_is_shown_with_all(dispatcher: InProcess, source: Source) -> None:
    await source.publish([1])
    await dispatcher.release()
    task_id = await dispatcher.task_of("chain", "copies", 1)
    assert (await _shown(dispatcher, task_id)).earlier_attempt_count == 0
    worker = Worker(dispatcher)
    await worker.complete(failure(worker.lease(await worker.claim_one(task_id))))
    shown = await _shown(dispatcher, task_id)
    assert ([attempt.attempt for attempt in shown.attempts], shown.earlier_attempt_count) == ([1], 0)


async def test_old_attempts_of_a_run_that_goes_on_are_not_kept(dispatcher: InProcess, source: Source) -> None:
    await _fill(dispatcher, source.lease.task_id, 5, old=3)
    await Keeper(dispatcher.pool, KEEPING).run_once()
    assert await dispatcher.value(KEPT) == 4
    shown = await _shown(dispatcher, source.lease.task_id)
    assert ([attempt.attempt for attempt in shown.attempts], shown.earlier_attempt_count) == ([4, 5, 6], 3)


async def test_however_many_they_are(dispatcher: InProcess, source: Source) -> None:
    """More than one transaction takes."""
    await _fill(dispatcher, source.lease.task_id, ATTEMPTS + 5, old=ATTEMPTS + 3)
    await Keeper(dispatcher.pool, KEEPING).trim_attempts()
    assert await dispatcher.value(KEPT) == ATTEMPTS + 4


@pytest.mark.parametrize(("days", "ago"), [(0, "999 days"), (30, "29 days")], ids=["for ever", "not old enough"])
async def test_attempts_stay_as_long_as_is_said(dispatcher: InProcess, source: Source, days: int, ago: str) -> None:
    await _fill(dispatcher, source.lease.task_id, 3, old=3, ago=ago)
    await Keeper(dispatcher.pool, Keeping(timedelta(), days)).run_once()
    assert await dispatcher.value(KEPT) == 1


@pytest.mark.parametrize("task", ["the dead run of a source", "another task"])
async def test_attempts_of_what_does_not_go_on_without_end_stay(
    dispatcher: InProcess, source: Source, task: str
) -> None:
    """Of what is dead they say why; of another task there is only a number of them."""
    await source.publish([1])
    task_id = await dispatcher.task_of("chain", "copies", 1)
    if task == "the dead run of a source":
        task_id = source.lease.task_id
        await source.worker.complete(failure(source.lease, error_class=task_pb2.ERROR_CLASS_INVALID_OUTPUT))
        await dispatcher.run("delete from attempt")
    await _fill(dispatcher, task_id, 3, old=3)
    await Keeper(dispatcher.pool, KEEPING).run_once()
    assert await dispatcher.value(KEPT) == 1
