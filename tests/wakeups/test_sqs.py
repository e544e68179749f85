"""SQS in particular: what it loses costs time only, what it doubles or makes up costs nothing."""

import asyncio
import json
from typing import Any

import pytest

from kernel.ids import new_id
from kernel.sqs import SqsLocation, check_wakeups, sqs_client
from tests.dispatcher.builders import Source, Worker, success
from tests.dispatcher.in_process import InProcess
from tests.sqs_server import SqsServer
from tests.wakeups import ways
from tests.wakeups.faulty_sqs import GARBAGE, FaultySqs
from tests.wakeups.ways import DEADLINE, PREFIX, InboxOf

NUMBERS = 60


@pytest.fixture
def queue_url(sqs: SqsServer) -> str:
    """The address of an empty queue."""
    url = sqs.make_queue(PREFIX)
    sqs_client(sqs.location(PREFIX)).delete_queue(QueueUrl=url)
    return sqs.make_queue(PREFIX)


async def _until_left(sqs: SqsServer, url: str, count: int) -> None:
    async with asyncio.timeout(DEADLINE):
        while await asyncio.to_thread(sqs.left, PREFIX, url) != count:
            pass


async def _until_empty(sqs: SqsServer, url: str) -> None:
    await _until_left(sqs, url, 0)


async def _work_off(way: ways.Way, inbox: InboxOf, dispatcher: InProcess) -> Worker:
    """Claims and completes whatever arrives, as often as it arrives, until all copies are made."""
    worker = Worker(dispatcher)
    done: set[str] = set()
    seen: set[str] = set()
    while len(done) < NUMBERS:
        await inbox.until(lambda: bool(inbox.arrived.keys() - seen))
        for task_id in list(inbox.arrived.keys() - seen):
            seen.add(task_id)
            answer = await worker.claim([task_id])
            way.answered([task_id])
            for result in answer.results:
                if result.HasField("claimed"):
                    await worker.complete(success(worker.lease(result.claimed)))
                    done.add(task_id)
    return worker


@pytest.mark.parametrize("lost", [0.0, 0.3, 1.0])
async def test_losses_cost_time_only(
    dispatcher: InProcess, source: Source, sqs: SqsServer, queue_url: str, lost: float
) -> None:
    faulty = FaultySqs(sqs_client(sqs.location(PREFIX)), 7, lost=lost, doubled=0.3, late=0.2, garbage=0.2)
    inbox = InboxOf()
    async with ways.opened("sqs", dispatcher, sqs, unanswered=0.5, sender=faulty) as way, way.listening(inbox):
        await source.publish(range(NUMBERS))
        await _work_off(way, inbox, dispatcher)
    assert await dispatcher.value("select max(attempt) from task where origin = 'live' and state = 'succeeded'") == 1
    if lost == 1.0:
        assert faulty.lost_count >= NUMBERS
    elif lost == 0.0:
        assert faulty.doubled_count > 0
        assert faulty.late_count > 0
        assert faulty.garbage_count > 0
    else:
        assert faulty.lost_count > 0


async def test_a_message_is_gone_once_its_claim_is_answered_and_garbage_at_once(
    dispatcher: InProcess, source: Source, sqs: SqsServer, queue_url: str
) -> None:
    client = sqs_client(sqs.location(PREFIX))
    for body in GARBAGE:
        client.send_message(QueueUrl=queue_url, MessageBody=body)
    inbox = InboxOf()
    async with ways.opened("sqs", dispatcher, sqs) as way, way.listening(inbox):
        await source.publish(range(15))
        await inbox.until(lambda: len(inbox.arrived) == 16)
        assert await asyncio.to_thread(sqs.left, PREFIX, queue_url) >= 16
        way.answered(list(inbox.arrived))
        await _until_empty(sqs, queue_url)


async def test_a_wakeup_among_the_dead_letters_is_neither_a_lost_task_nor_an_attempt(
    dispatcher: InProcess, source: Source, sqs: SqsServer, queue_url: str
) -> None:
    """Whoever gets it first never answers, and SQS then gives it to nobody again."""
    client = sqs_client(sqs.location(PREFIX))
    dead_letters = sqs.make_queue(PREFIX, new_id())
    arn = client.get_queue_attributes(QueueUrl=dead_letters, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    redrive = json.dumps({"deadLetterTargetArn": arn, "maxReceiveCount": "1"})
    client.set_queue_attributes(QueueUrl=queue_url, Attributes={"RedrivePolicy": redrive, "VisibilityTimeout": "0"})
    inbox = InboxOf()
    async with ways.opened("sqs", dispatcher, sqs, unanswered=2) as way, way.listening(inbox):
        await source.publish([1])
        task_id = await dispatcher.task_of("chain", "copies", 1)
        await inbox.until(lambda: inbox.arrived[task_id] > 0)
        await _until_left(sqs, dead_letters, 2)  # that of `ranges` too
        await inbox.until(lambda: inbox.arrived[task_id] > 1)  # the sweep's
        worker = Worker(dispatcher)
        await worker.complete(success(worker.lease(await worker.claim_one(task_id))))
        way.answered([task_id])
        came = inbox.arrived[task_id]
        client.send_message(QueueUrl=queue_url, MessageBody=task_id)  # a person gives it back
        await inbox.until(lambda: inbox.arrived[task_id] > came)
        (again,) = (await worker.claim([task_id])).results
        assert not again.HasField("claimed")
    assert await dispatcher.rows("select state::text, attempt from any_task where task_id = %s", task_id) == [
        ("succeeded", 1)
    ]


async def test_while_sqs_does_not_answer_the_stream_carries_everything(
    dispatcher: InProcess, source: Source, sqs: SqsServer, queue_url: str
) -> None:
    faulty = FaultySqs(sqs_client(sqs.location(PREFIX)), 1)
    faulty.cut = True
    inbox = InboxOf()
    async with ways.opened("sqs", dispatcher, sqs, unanswered=0.5, sender=faulty) as way, way.listening(inbox):
        await source.publish(range(10))
        await inbox.until(lambda: len(inbox.arrived) == 11)


async def test_where_nobody_watches_there_is_no_room(
    dispatcher: InProcess, source: Source, sqs: SqsServer, queue_url: str
) -> None:
    """What went into SQS could not be overtaken any more by what is more urgent."""
    async with ways.opened("sqs", dispatcher, sqs) as way:
        assert way.channel is not None
        await source.publish(range(5))
        await way.channel.count()
        assert sum(way.channel.room().values()) == 0


async def test_once_sqs_is_full_the_stream_carries_everything(
    dispatcher: InProcess, source: Source, sqs: SqsServer, queue_url: str
) -> None:
    """The workers may not receive, for one: then SQS only fills."""
    client = sqs_client(sqs.location(PREFIX))
    for _ in range(2):
        entries: Any = [{"Id": str(number), "MessageBody": new_id()} for number in range(10)]
        client.send_message_batch(QueueUrl=queue_url, Entries=entries)
    inbox = InboxOf()
    async with ways.opened("sqs", dispatcher, sqs, window=20) as way:
        assert way.channel is not None
        await way.channel.ask_depth("default")
        listening = asyncio.create_task(way.wakeups[0].listen(inbox))
        await source.publish(range(10))
        await inbox.until(lambda: len(inbox.arrived) == 11)
        listening.cancel()
        await asyncio.wait([listening])
    assert await asyncio.to_thread(sqs.left, PREFIX, queue_url) == 20


def test_the_setting_is_a_word_or_the_url_of_queues() -> None:
    check_wakeups("stream")
    location = SqsLocation.parse("sqs://trace-1?endpoint=https://sqs.example:9324&region=eu-central-1")
    assert (location.prefix, location.endpoint, location.region) == (
        "trace-1",
        "https://sqs.example:9324",
        "eu-central-1",
    )
    assert location.queue_name("default") == "trace-1-default"


@pytest.mark.parametrize(
    ("url", "word"),
    [
        ("", "neither"),
        ("streams", "neither"),
        ("sqs://", "neither"),
        ("sqs://a-prefix-of-more-than-sixteen", "1 to 16"),
        ("sqs://trace/path", "neither"),
        ("sqs://key:secret@trace", "credentials do not belong"),
        ("sqs://trace?zone=1", "endpoint and region only"),
        ("sqs://trace?endpoint=ftp://host", "https://host:port"),
        ("sqs://trace?endpoint=http://sqs.example", "only with https"),
        ("sqs://trace?endpoint=https://host:port", "no address"),
    ],
)
def test_a_setting_that_means_nothing_says_why(url: str, word: str) -> None:
    with pytest.raises(ValueError, match=word) as failure:
        check_wakeups(url)
    assert "secret" not in str(failure.value)
