"""How a worker polls SQS: for no more than it has room for, and so that a drain keeps nothing back."""

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import pytest

from kernel.ids import new_id
from kernel.sqs import LONG_POLL_SECONDS, sqs_client
from tests.sqs_server import SqsServer
from tests.wakeups.ways import DEADLINE, PREFIX, InboxOf
from wrapper.wakeups.sqs import SqsWakeups

if TYPE_CHECKING:
    from types_boto3_sqs.client import SQSClient

ROOM = 3


class CountedPolls:
    """Stands where the client stands, and counts what open polls ask for."""

    def __init__(self, client: "SQSClient") -> None:
        self._client = client
        self._lock = threading.Lock()
        self.asked = self.most_asked = 0

    def receive_message(self, *, MaxNumberOfMessages: int, **arguments: Any) -> Any:
        with self._lock:
            self.asked += MaxNumberOfMessages
            self.most_asked = max(self.most_asked, self.asked)
        try:
            return self._client.receive_message(MaxNumberOfMessages=MaxNumberOfMessages, **arguments)
        finally:
            with self._lock:
                self.asked -= MaxNumberOfMessages

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)


@pytest.fixture
def queue_url(sqs: SqsServer) -> str:
    """The address of an empty queue, in which what was received comes again only where it is given back."""
    client = sqs_client(sqs.location(PREFIX))
    client.delete_queue(QueueUrl=sqs.make_queue(PREFIX))
    return sqs.make_queue(PREFIX, VisibilityTimeout="600")


@pytest.fixture
def polls(sqs: SqsServer) -> CountedPolls:
    return CountedPolls(sqs_client(sqs.location(PREFIX), LONG_POLL_SECONDS))


@contextlib.asynccontextmanager
async def _listening(sqs: SqsServer, polls: CountedPolls, inbox: InboxOf) -> AsyncIterator[SqsWakeups]:
    wakeups = SqsWakeups(sqs.location(PREFIX), ("default",), client=polls)  # type: ignore[arg-type]
    listening = asyncio.create_task(wakeups.listen(inbox))
    try:
        async with asyncio.timeout(DEADLINE):
            yield wakeups
    finally:
        listening.cancel()
        await asyncio.wait([listening])


def _send(sqs: SqsServer, url: str, count: int) -> set[str]:
    task_ids = [new_id() for _ in range(count)]
    entries: Any = [{"Id": str(number), "MessageBody": task_id} for number, task_id in enumerate(task_ids)]
    sqs_client(sqs.location(PREFIX)).send_message_batch(QueueUrl=url, Entries=entries)
    return set(task_ids)


async def _until_arrived(inbox: InboxOf, count: int) -> None:
    await inbox.until(lambda: len(inbox.arrived) >= count)


async def test_open_polls_ask_for_no_more_than_there_is_room(
    sqs: SqsServer, queue_url: str, polls: CountedPolls
) -> None:
    """Ids that a full worker gets are ids that no other one gets."""
    inbox = InboxOf(room=ROOM)
    async with _listening(sqs, polls, inbox):
        for number in range(1, 11):
            await asyncio.to_thread(_send, sqs, queue_url, 10)
            await _until_arrived(inbox, 10 * number)
    assert 1 <= polls.most_asked <= ROOM


async def test_a_worker_is_connected_before_the_first_wakeup_comes(
    sqs: SqsServer, queue_url: str, polls: CountedPolls
) -> None:
    async with asyncio.timeout(LONG_POLL_SECONDS / 2), _listening(sqs, polls, InboxOf()) as wakeups:
        while not wakeups.connected:
            await asyncio.to_thread(sqs.left, PREFIX, queue_url)
    assert not wakeups.connected


async def test_what_a_poll_brings_after_a_drain_is_given_back(
    sqs: SqsServer, queue_url: str, polls: CountedPolls
) -> None:
    inbox, other = InboxOf(room=ROOM), InboxOf()
    async with _listening(sqs, polls, inbox):
        while not polls.asked:
            await asyncio.to_thread(sqs.left, PREFIX, queue_url)
    sent = await asyncio.to_thread(_send, sqs, queue_url, ROOM)
    async with _listening(sqs, polls, other):
        await other.until(lambda: sent <= other.arrived.keys())
    assert not inbox.arrived


async def test_without_room_nobody_polls_after_a_drain(sqs: SqsServer, queue_url: str, polls: CountedPolls) -> None:
    """Who waited for room when the worker drained has nothing to wait for any more."""
    full, other = InboxOf(room=0), InboxOf(room=ROOM)
    async with _listening(sqs, polls, full) as wakeups:
        while not wakeups.connected:
            await asyncio.to_thread(sqs.left, PREFIX, queue_url)
    full.set_room(100)
    sent = await asyncio.to_thread(_send, sqs, queue_url, ROOM)
    async with _listening(sqs, polls, other):
        await other.until(lambda: sent <= other.arrived.keys())
    assert not full.arrived
    assert polls.most_asked <= ROOM
