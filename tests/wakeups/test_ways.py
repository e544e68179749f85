"""What every way to be woken must do: one suite for the built-in stream and for SQS."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager

import pytest
import pytest_asyncio

from kernel.sqs import sqs_client
from tests.dispatcher.builders import Source
from tests.dispatcher.in_process import InProcess
from tests.sqs_server import SqsServer
from tests.wakeups import ways
from tests.wakeups.ways import PREFIX, InboxOf, Way
from wrapper.wakeups.sqs import RECEIVERS

Open = Callable[..., AbstractAsyncContextManager[Way]]


@pytest_asyncio.fixture(params=["stream", "sqs"])
async def open_way(request: pytest.FixtureRequest, dispatcher: InProcess, sqs: SqsServer) -> AsyncIterator[Open]:
    """Opens the way; its queue is new."""
    url = sqs.make_queue(PREFIX)
    yield lambda **settings: ways.opened(request.param, dispatcher, sqs, **settings)
    sqs_client(sqs.location(PREFIX)).delete_queue(QueueUrl=url)


async def _open_tasks(dispatcher: InProcess) -> set[str]:
    """What may go: each task of its own, and the head of the ordered stream."""
    rows = await dispatcher.rows("select task_id::text from task where origin <> 'source_run' and state = 'released'")
    return {row[0] for row in rows}


async def test_what_may_go_wakes_a_worker(dispatcher: InProcess, source: Source, open_way: Open) -> None:
    inbox = InboxOf()
    async with open_way() as way, way.listening(inbox):
        await source.publish(range(40))
        await inbox.until(lambda: len(inbox.arrived) == 41)
        assert set(inbox.arrived) == await _open_tasks(dispatcher)


async def test_without_room_nothing_arrives(source: Source, open_way: Open) -> None:
    inbox = InboxOf(room=0)
    async with open_way() as way, way.listening(inbox):
        await source.publish(range(40))
        inbox.set_room(1)
        await inbox.until(lambda: len(inbox.arrived) >= 1)
        inbox.set_room(0)
        some = len(inbox.arrived)  # each long poll that was open took one
        assert some <= RECEIVERS
        inbox.set_room(100)
        await inbox.until(lambda: len(inbox.arrived) == 41)


async def test_who_listened_before_listens_again(source: Source, open_way: Open) -> None:
    async with open_way() as way:
        for first in (0, 3):
            await _listen_once(way, source, range(first, first + 3))


async def _listen_once(way: Way, source: Source, numbers: range) -> None:
    inbox = InboxOf()
    async with way.listening(inbox):
        await source.publish(numbers)
        await inbox.until(lambda: len(inbox.arrived) >= len(numbers))
        way.answered(list(inbox.arrived))


async def test_no_more_is_released_than_workers_have_room_for(
    dispatcher: InProcess, source: Source, open_way: Open
) -> None:
    """What is out cannot be overtaken any more by what is more urgent."""
    inbox = InboxOf(room=4)
    async with open_way() as way, way.listening(inbox):
        await source.publish(range(50))
        await inbox.until(lambda: bool(inbox.arrived))
        assert 1 <= len(await _open_tasks(dispatcher)) <= 4


async def test_what_nobody_claims_is_sent_again(source: Source, open_way: Open) -> None:
    inbox = InboxOf()
    async with open_way(unanswered=0.3) as way, way.listening(inbox):
        await source.publish(range(4))
        await inbox.until(lambda: len(inbox.arrived) == 5 and min(inbox.arrived.values()) >= 2)


async def test_a_worker_is_nudged_about_what_it_has(dispatcher: InProcess, source: Source, open_way: Open) -> None:
    inbox = InboxOf()
    async with open_way() as way, way.listening(inbox):
        await source.publish([1])
        await inbox.until(lambda: len(inbox.arrived) == 2)
        channel = way.channel or dispatcher.hot.channel
        channel.nudge("worker-1", ["0198c0de-0000-7000-8000-000000000001"])
        await inbox.until(lambda: "0198c0de-0000-7000-8000-000000000001" in inbox.arrived)
