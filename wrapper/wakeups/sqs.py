"""Wake-ups from SQS: long polls while there is room; a message is deleted as soon as its claim was answered.

The body is a task id. What is none is deleted and counted; what comes twice is claimed twice, and the second claim gets
nothing. A message whose claim failed is left alone: SQS shows it again, or the sweep sends another.
"""

import asyncio
import threading
import uuid
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError as FutureCancelled
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

from botocore.exceptions import BotoCoreError, ClientError

from kernel.sqs import BATCH, LONG_POLL_SECONDS, SqsLocation, sqs_client
from kernel.telemetry import get_logger
from wrapper.backoff import Backoff
from wrapper.wakeups.port import Inbox

if TYPE_CHECKING:
    from types_boto3_sqs.client import SQSClient
    from types_boto3_sqs.type_defs import (
        ChangeMessageVisibilityBatchRequestEntryTypeDef,
        DeleteMessageBatchRequestEntryTypeDef,
        MessageTypeDef,
    )

RECEIVERS = 4
"""Long polls that are open for each queue."""
_DELETERS = 4
_MAX_RECEIPTS = 20_000
_log = get_logger("wrapper.wakeups")


class SqsWakeups:
    """The SQS queues of a worker's queues."""

    def __init__(
        self,
        location: SqsLocation,
        queues: Sequence[str],
        *,
        receivers: int = RECEIVERS,
        client: "SQSClient | None" = None,
    ) -> None:
        self._location = location
        self._queues = queues
        self._receivers = receivers
        self._client = client or sqs_client(location, LONG_POLL_SECONDS)
        self._receipts: dict[str, list[tuple[str, str]]] = {}  # by task id: queue's URL and receipt handle
        self._to_delete: deque[tuple[str, str]] = deque()
        self._deletable = asyncio.Event()
        self._reached: set[str] = set()
        self.garbage_count = 0
        """Messages that were no wake-ups."""

    @property
    def connected(self) -> bool:
        """Each queue has answered, and its last call did not fail."""
        return self._reached.issuperset(self._queues)

    async def listen(self, inbox: Inbox) -> None:
        shares, loop = _Shares(inbox), asyncio.get_running_loop()
        receivers = [_Receiver(self, queue, shares, loop) for queue in self._queues for _ in range(self._receivers)]
        for receiver in receivers:
            # A daemon: nobody waits at the end for a long poll to return.
            threading.Thread(target=receiver.run, name="sqs-receive", daemon=True).start()
        try:
            await self._delete()
        finally:
            for receiver in receivers:
                receiver.stop()
            shares.close()
            self._reached.clear()

    def answered(self, task_ids: Sequence[str]) -> None:
        for task_id in task_ids:
            self._to_delete.extend(self._receipts.pop(task_id, ()))
        if self._to_delete:
            self._deletable.set()

    async def _delete(self) -> None:
        """Deletes what was answered, many at a time. What cannot be deleted comes again, and is nothing new then."""
        loop = asyncio.get_running_loop()
        threads = ThreadPoolExecutor(_DELETERS, thread_name_prefix="sqs-delete")
        try:
            while True:
                await self._deletable.wait()
                self._deletable.clear()
                while self._to_delete:
                    batches = self._batches()
                    await asyncio.gather(*[loop.run_in_executor(threads, self._delete_batch, *one) for one in batches])
        finally:
            threads.shutdown(wait=False, cancel_futures=True)

    def _batches(self) -> list[tuple[str, list[str]]]:
        batches: list[tuple[str, list[str]]] = []
        while self._to_delete and len(batches) < _DELETERS:
            url, handles = self._to_delete[0][0], list[str]()
            while self._to_delete and self._to_delete[0][0] == url and len(handles) < BATCH:
                handles.append(self._to_delete.popleft()[1])
            batches.append((url, handles))
        return batches

    def _delete_batch(self, url: str, handles: Sequence[str]) -> None:
        entries: list[DeleteMessageBatchRequestEntryTypeDef] = [
            {"Id": str(number), "ReceiptHandle": handle} for number, handle in enumerate(handles)
        ]
        try:
            self._client.delete_message_batch(QueueUrl=url, Entries=entries)
        except (BotoCoreError, ClientError) as error:
            _log.warning("SQS messages not deleted, they come again", count=len(handles), error=str(error))

    def address(self, queue: str) -> str:
        """The SQS queue's URL. Blocks."""
        return self._client.get_queue_url(QueueName=self._location.queue_name(queue))["QueueUrl"]

    def receive(self, url: str, most: int) -> "list[MessageTypeDef]":
        """One long poll. Blocks."""
        answer = self._client.receive_message(QueueUrl=url, MaxNumberOfMessages=most, WaitTimeSeconds=LONG_POLL_SECONDS)
        return answer.get("Messages", [])

    def give_back(self, url: str, messages: "Sequence[MessageTypeDef]") -> None:
        """Others may receive them at once: this worker drains. Blocks."""
        entries: list[ChangeMessageVisibilityBatchRequestEntryTypeDef] = [
            {"Id": str(number), "ReceiptHandle": message["ReceiptHandle"], "VisibilityTimeout": 0}
            for number, message in enumerate(messages)
        ]
        try:
            self._client.change_message_visibility_batch(QueueUrl=url, Entries=entries)
        except (BotoCoreError, ClientError) as error:
            _log.warning("SQS messages not given back, they come again later", count=len(entries), error=str(error))

    def reached(self, queue: str) -> None:
        """In the loop's thread."""
        self._reached.add(queue)

    def arrived(self, inbox: Inbox, queue: str, url: str, messages: "Sequence[MessageTypeDef]") -> None:
        """In the loop's thread."""
        self._reached.add(queue)
        woken: list[str] = []
        for message in messages:
            receipt = (url, message["ReceiptHandle"])
            task_id = _task_id(message.get("Body", ""))
            if task_id is None:
                self.garbage_count += 1
                self._to_delete.append(receipt)
                self._deletable.set()
                continue
            woken.append(task_id)
            self._receipts.setdefault(task_id, []).append(receipt)
        while len(self._receipts) > _MAX_RECEIPTS:  # of claims that failed: SQS shows these messages again
            self._receipts.pop(next(iter(self._receipts)))
        if woken:
            inbox.wake(woken)

    def failed(self, queue: str, error: Exception) -> None:
        """In the loop's thread."""
        self._reached.discard(queue)
        name = self._location.queue_name(queue)
        _log.warning("SQS gives no wake-ups", queue=queue, sqs_queue=name, error=str(error))


class _Shares:
    """The inbox' room, divided among the polls: what an open poll may bring is no room for another one. Only ever used
    in the loop's thread."""

    def __init__(self, inbox: Inbox) -> None:
        self.inbox = inbox
        self._asked = 0
        self._takings: set[asyncio.Task[None]] = set()

    def take(self, taken: "Future[int]") -> None:
        """`taken` becomes how many messages may be asked for, once there is room."""
        taking = asyncio.get_running_loop().create_task(self._take(taken))
        self._takings.add(taking)
        taking.add_done_callback(self._takings.discard)

    async def _take(self, taken: "Future[int]") -> None:
        while (left := self.inbox.room_left() - self._asked) < 1:
            await self.inbox.room_changes()
        if taken.set_running_or_notify_cancel():
            share = min(left, BATCH)
            self._asked += share
            taken.set_result(share)

    def return_(self, share: int) -> None:
        """The poll has ended."""
        self._asked -= share

    def close(self) -> None:
        """Nobody waits for room any more."""
        for taking in self._takings:
            taking.cancel()


class _Receiver:
    """One thread that waits for messages of one queue."""

    def __init__(self, wakeups: SqsWakeups, queue: str, shares: _Shares, loop: asyncio.AbstractEventLoop) -> None:
        self._wakeups = wakeups
        self._queue = queue
        self._shares = shares
        self._loop = loop
        self._stopped = threading.Event()
        self._taking: Future[int] | None = None

    def stop(self) -> None:
        """In the loop's thread. A poll that is open goes on, and what it still brings is given back."""
        self._stopped.set()
        if self._taking is not None:
            self._taking.cancel()

    def run(self) -> None:
        url: str | None = None
        backoff = Backoff()
        try:
            while not self._stopped.is_set():
                try:
                    if url is None:
                        url = self._wakeups.address(self._queue)
                        self._tell(self._wakeups.reached, self._queue)
                    self._receive(url)
                    backoff.reset()
                except (BotoCoreError, ClientError) as error:
                    url = None
                    self._tell(self._wakeups.failed, self._queue, error)
                    self._stopped.wait(backoff.seconds())
        except (RuntimeError, FutureCancelled):
            return  # the loop has ended, or nobody listens any more

    def _receive(self, url: str) -> None:
        self._taking = Future()
        self._tell(self._shares.take, self._taking)
        if self._stopped.is_set():
            self._taking.cancel()
        share = self._taking.result()
        if self._stopped.is_set():  # it was told so after there was room
            return
        try:
            messages = self._wakeups.receive(url, share)
        except (BotoCoreError, ClientError):
            self._tell(self._shares.return_, share)
            raise
        if not self._stopped.is_set():
            self._tell(self._wakeups.arrived, self._shares.inbox, self._queue, url, messages)
            self._tell(self._shares.return_, share)
        elif messages:
            self._wakeups.give_back(url, messages)

    def _tell(self, what: Callable[..., None], *arguments: object) -> None:
        """In the loop's thread, unless nobody listens any more by then."""
        self._loop.call_soon_threadsafe(lambda: None if self._stopped.is_set() else what(*arguments))


def _task_id(body: str) -> str | None:
    """As the database writes it; None for what is no id."""
    try:
        return str(uuid.UUID(body)) if len(body) == 36 else None
    except ValueError:
        return None
