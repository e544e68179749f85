"""What decides over events reads no finished task: it goes on when these were moved, and when they were dropped."""

from tests.dispatcher.builders import READER, Source, Worker, success
from tests.dispatcher.in_process import InProcess

FORGET = "select drop_finished_day(day) from finished_day"

# A deploy of another version takes the reader back and a later one restores it: its interval ends, and another begins.
CLOSE = """
update subscription set to_number = (select max(number) from dataset_head)
where to_number is null and job_version_id in (select job_version_id from job_version where dag = 'reader')
"""
REOPEN = """
insert into subscription (job_version_id, input_version_id, from_number, replayed)
select s.job_version_id, s.input_version_id, (select max(number) from dataset_head), false
from subscription s
join job_version j using (job_version_id)
where j.dag = 'reader'
"""
END_BEFORE_FIVE = """
update task set state = 'canceled', reason = 'ended', finished_at = clock_timestamp()
where state = 'queued' and get_byte(scope_first, 7) < 5
    and job_version_id in (select job_version_id from job_version where dag = 'reader')
"""
MADE = """
select get_byte(t.scope_first, 7)
from any_task t
join job_version j using (job_version_id)
where j.dag = 'reader'
order by 1
"""


async def test_events_whose_tasks_were_moved_and_dropped_make_none_again(dispatcher: InProcess, source: Source) -> None:
    """A consumer that comes again is owed what it missed, and nothing else."""
    await source.publish([1, 2, 3])
    await dispatcher.deploy(READER)
    await source.publish([4])
    while await dispatcher.replay():
        pass
    await dispatcher.run(CLOSE)
    await source.publish([5, 6])
    await dispatcher.run(REOPEN)
    await source.publish([7])
    await dispatcher.run(END_BEFORE_FIVE)
    assert await dispatcher.keep() == 4
    await dispatcher.run(FORGET)
    while await dispatcher.replay():
        pass
    assert [number for (number,) in await dispatcher.rows(MADE)] == [5, 6, 7]


async def test_streams_and_watermarks_go_on_without_what_was_moved(dispatcher: InProcess, source: Source) -> None:
    """An ordered stream remembers where it is; what comes before that is late, though no row of it is left."""
    worker = Worker(dispatcher)
    for numbers in ([5, 6], [7]):
        await source.publish(numbers)
        for number in numbers:
            await dispatcher.release()
            lease = worker.lease(await worker.claim_one(await dispatcher.task_of("chain", "copies", number)))
            assert await worker.complete(success(lease)) == ["succeeded"]
        run = await worker.claim_run(await dispatcher.task_of("chain", "ranges", numbers[-1]))
        assert [task.scope.cursor.int64_value for task in run.tasks] == numbers
        items = [success(lease, stream=run.stream) for lease in worker.leases(run)]
        assert await worker.complete(*items) == ["succeeded"] * len(numbers)
        assert await dispatcher.keep() == 2 * len(numbers)
        await dispatcher.derive()
        watermark = await dispatcher.value(
            "select get_byte(w.cursor_key, 7) from watermark w join pointer p using (dataset_version_id)"
            " where p.dataset_id = 'copies'"
        )
        assert watermark == numbers[-1]
    await dispatcher.run(FORGET)
    await source.publish([3], watermark=False)
    await dispatcher.release()
    late = await dispatcher.task_of("chain", "ranges", 3)
    await worker.claim([late])
    assert await dispatcher.value("select state::text from task where task_id = %s", late) == "dead"
