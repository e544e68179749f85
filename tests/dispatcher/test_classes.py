"""Classes and windows of a queue, in the database: live work beside rebuilds and backfills."""

import asyncio
from datetime import timedelta

import pytest

from dispatcher.db.pool import transaction
from dispatcher.wakeups.release import Releaser, release
from tests.dispatcher.builders import CHAIN, READER, Source, Worker
from tests.dispatcher.in_process import InProcess, Workers

SETTINGS = """\
insert into queue_settings (
    queue, window_size, live_share, rematerialization_share, backfill_share, live_reserve, actor
) values ('default', %s, 60, 30, 10, 1, 'tester')
"""
OUT = """\
select t.origin::text, count(*) from task t join job_version j using (job_version_id)
where t.state in ('released', 'running') and j.job = 'copies' group by 1
"""


async def _backlog(dispatcher: InProcess, source: Source, numbers: range, origin: str) -> None:
    """Tasks of `copies` alone, of an origin."""
    await source.publish(numbers)
    await dispatcher.run(
        "update task set origin = %s where origin = 'live' and state = 'queued'"
        " and job_version_id in (select job_version_id from job_version where job = 'copies')",
        origin,
    )
    await dispatcher.run(
        "update task set state = 'canceled', reason = 'not here', finished_at = clock_timestamp()"
        " where job_version_id in (select job_version_id from job_version where job = 'ranges') and state = 'queued'"
    )


async def _out(dispatcher: InProcess) -> dict[str, int]:
    return dict(await dispatcher.rows(OUT))


async def test_classes_share_a_window(dispatcher: InProcess, source: Source) -> None:
    await dispatcher.run(SETTINGS, 20)
    await _backlog(dispatcher, source, range(100), "backfill")
    await _backlog(dispatcher, source, range(100, 200), "replay")
    await _backlog(dispatcher, source, range(200, 300), "live")
    await dispatcher.release()
    assert await _out(dispatcher) == {"live": 12, "replay": 6, "backfill": 2}


async def test_a_backfill_leaves_a_place_for_a_fresh_event(dispatcher: InProcess, source: Source) -> None:
    await _backlog(dispatcher, source, range(100), "backfill")
    await dispatcher.release(10)
    assert await _out(dispatcher) == {"backfill": 9}
    await _backlog(dispatcher, source, range(100, 101), "live")
    assert await dispatcher.release(1) == [await dispatcher.task_of("chain", "copies", 100)]


async def test_the_most_urgent_wake_up_comes_first(dispatcher: InProcess, source: Source) -> None:
    await _backlog(dispatcher, source, range(20), "backfill")
    await _backlog(dispatcher, source, range(20, 21), "live")
    assert (await dispatcher.release())[0] == await dispatcher.task_of("chain", "copies", 20)


async def test_retained_events_of_a_late_consumer_are_rematerialization(dispatcher: InProcess, source: Source) -> None:
    await source.publish(range(3))
    await dispatcher.deploy(READER)
    await dispatcher.replay()
    await dispatcher.run(SETTINGS, 1)
    await dispatcher.release()
    origins = await dispatcher.rows("select origin::text from task where state = 'released'")
    assert origins == [("live",)]
    await dispatcher.run("update queue_settings set window_size = 4")
    await dispatcher.release()
    origins = await dispatcher.rows("select distinct origin::text from task where state = 'released' order by 1")
    assert origins == [("live",), ("replay",)]


async def test_an_open_window_closes_when_it_is_lowered_and_opens_when_it_is_raised(
    dispatcher: InProcess, source: Source
) -> None:
    await dispatcher.run(SETTINGS, 5)
    await _backlog(dispatcher, source, range(20), "live")
    assert len(await dispatcher.release()) == 5
    await dispatcher.run("update queue_settings set window_size = 3")
    assert await dispatcher.release() == []
    await dispatcher.run("update queue_settings set window_size = 7")
    assert len(await dispatcher.release()) == 2


async def test_a_window_holds_no_source(dispatcher: InProcess) -> None:
    await dispatcher.run(SETTINGS, 1)
    await dispatcher.deploy(CHAIN)
    await dispatcher.deploy(
        CHAIN.replace("dag: chain", "dag: other")
        .replace("blocks", "blips")
        .replace("ranges", "r")
        .replace("copies", "c")
    )
    assert len(await dispatcher.release()) == 2


async def test_a_stream_keeps_its_order_across_classes(dispatcher: InProcess, source: Source) -> None:
    await source.publish(range(6))
    await dispatcher.run(
        "update task set origin = case get_byte(scope_first, 7) % 3 when 0 then 'backfill' when 1 then 'replay'"
        " else 'live' end::task_origin"
        " where job_version_id in (select job_version_id from job_version where job = 'ranges')"
    )
    await dispatcher.release()
    first = await dispatcher.task_of("chain", "ranges", 0)
    released = await dispatcher.rows(
        "select t.task_id::text from task t join job_version using (job_version_id)"
        " where job = 'ranges' and t.state = 'released'"
    )
    assert released == [(first,)]
    run = await Worker(dispatcher).claim_run(first)
    assert [task.scope.cursor.int64_value for task in run.tasks] == list(range(6))


@pytest.mark.races
async def test_two_replicas_do_not_fill_a_window_twice(dispatcher: InProcess, source: Source) -> None:
    """The first round is stopped inside its transaction, after it has released; the second must wait for its count."""
    await dispatcher.run(SETTINGS, 5)
    await _backlog(dispatcher, source, range(20), "backfill")
    workers = Workers()
    second = Releaser(dispatcher.pool, workers, unanswered=timedelta(seconds=10))
    async with transaction(dispatcher.pool) as first:
        assert len((await release(first, "default", 100)).task_ids) == 4
        rival = asyncio.create_task(second.run_once())
        await dispatcher.until_waiting_or_done(rival)
    await rival
    assert await _out(dispatcher) == {"backfill": 4}


async def test_a_queue_without_settings_keeps_nobody_waiting(dispatcher: InProcess, source: Source) -> None:
    await _backlog(dispatcher, source, range(20), "live")
    async with transaction(dispatcher.pool) as first:
        assert len((await release(first, "default", 5)).task_ids) == 5
        assert len(await dispatcher.release(5)) == 5
