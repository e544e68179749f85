"""What time makes due is found by one statement, and the duty that it is for is called."""

import asyncio
from datetime import timedelta

import pytest

from dispatcher.db.pool import transaction
from dispatcher.duties import Lookout, build_duties, run_duties
from dispatcher.tasks.keeping import Keeping
from dispatcher.wakeups.lookout import Due, find_due
from dispatcher.wakeups.release import Releaser
from kernel.ids import new_id
from tests.dispatcher.builders import Source, Worker, failure
from tests.dispatcher.in_process import DEADLINE, InProcess, Workers

UNANSWERED = timedelta(seconds=10)
STATE = "select state::text from task where task_id = %s"


async def _due(dispatcher: InProcess) -> Due:
    async with transaction(dispatcher.pool) as connection:
        return await find_due(connection, UNANSWERED)


async def _quiet(dispatcher: InProcess) -> None:
    """Ends what is under way, but for the run of the source."""
    await dispatcher.run(
        "update task set state = 'canceled', reason = 'quiet', released_at = null, retry_at = null,"
        " finished_at = clock_timestamp() where state in ('queued', 'released', 'backoff')"
    )


async def test_where_nothing_is_under_way_nothing_is_due(dispatcher: InProcess) -> None:
    await _quiet(dispatcher)
    assert await _due(dispatcher) == Due(
        leases=None, backoffs=None, wakeups=None, replay=False, queued=False, staged=False
    )


async def test_a_queued_task_is_due(dispatcher: InProcess, source: Source) -> None:
    await _quiet(dispatcher)
    await source.publish([1])
    assert (await _due(dispatcher)).queued


async def test_what_is_queued_of_a_version_that_was_replaced_is_not_due(dispatcher: InProcess, source: Source) -> None:
    """It waits until its version comes back, for years if need be: no round of releases can do anything about it."""
    await _quiet(dispatcher)
    await source.publish([1])
    await dispatcher.run("update job_version_run set run_state = 'superseded'")
    assert not (await _due(dispatcher)).queued


async def test_a_lease_is_due_when_it_runs_out(dispatcher: InProcess, source: Source) -> None:
    due = (await _due(dispatcher)).leases
    assert due is not None
    assert 0 < due <= 60
    await dispatcher.run(
        "update task set lease_until = clock_timestamp() - interval '1 s' where lease_until is not null"
    )
    due = (await _due(dispatcher)).leases
    assert due is not None
    assert due <= -1


async def test_a_run_of_an_ordered_job_is_due_by_its_streams_lease(dispatcher: InProcess, source: Source) -> None:
    await source.publish([1])
    await dispatcher.release()
    await Worker(dispatcher).claim_run(await dispatcher.task_of("chain", "ranges", 1))
    await dispatcher.run(
        "update ordered_stream set lease_until = clock_timestamp() - interval '1 s' where lease_until is not null"
    )
    due = (await _due(dispatcher)).leases
    assert due is not None
    assert due <= -1


async def test_a_wake_up_is_due_when_it_was_not_answered_for_long_enough(dispatcher: InProcess, source: Source) -> None:
    await source.publish([1])
    await dispatcher.release()
    due = (await _due(dispatcher)).wakeups
    assert due is not None
    assert 0 < due <= 10


async def test_a_backoff_is_due_when_it_ends(dispatcher: InProcess, source: Source) -> None:
    await source.publish([1])
    await dispatcher.release()
    worker = Worker(dispatcher)
    task = await worker.claim_one(await dispatcher.task_of("chain", "copies", 1))
    assert await worker.complete(failure(worker.lease(task))) == ["backoff"]
    assert (await _due(dispatcher)).backoffs is not None


async def test_a_replay_is_due_until_it_is_done(dispatcher: InProcess, source: Source) -> None:
    await dispatcher.run("update subscription set replayed = false")
    assert (await _due(dispatcher)).replay


@pytest.mark.parametrize("left", ["-1 s", "100 ms"])
async def test_running_duties_take_a_lease_back_once_it_has_run_out(
    dispatcher: InProcess, source: Source, left: str
) -> None:
    await source.publish([1])
    await dispatcher.release()
    task = await Worker(dispatcher).claim_one(await dispatcher.task_of("chain", "copies", 1))
    channel = Workers({})
    releaser = Releaser(dispatcher.pool, channel, unanswered=UNANSWERED)
    duties = build_duties(dispatcher.pool, releaser, UNANSWERED, new_id(), Keeping(timedelta(hours=1), 0))
    running = asyncio.create_task(run_duties(duties.all))
    await dispatcher.run(
        "update task set lease_until = clock_timestamp() + %s::interval where task_id = %s", left, task.task_id
    )
    async with asyncio.timeout(DEADLINE):
        while await dispatcher.value(STATE, task.task_id) == "running":
            await asyncio.wait([running], timeout=0.02)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


async def test_a_wake_up_without_an_answer_is_sent_again_once_it_is_due(dispatcher: InProcess, source: Source) -> None:
    await source.publish([1])
    sent = set(await dispatcher.release())
    workers = Workers()
    releaser = Releaser(dispatcher.pool, workers, unanswered=UNANSWERED)
    await releaser.run_once()  # the first round of a dispatcher looks for what its predecessor sent
    lookout = Lookout(dispatcher.pool, releaser, UNANSWERED, idle=1, rest=0)
    await dispatcher.leave_unanswered()
    await releaser.run_once()
    assert workers.sent == []
    await lookout.run_once()
    await releaser.run_once()
    assert set(workers.sent) == sent
