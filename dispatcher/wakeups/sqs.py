"""Wake-ups over SQS: a `WakeupChannel` beside the stream, which goes on to carry what is sent again and what is nudged.

A message's body is a task id, nothing else. SQS gives no credits, so the room of a queue is what its workers have told
over their streams, less the wake-ups that are out without an answer: by what the database says, which is asked while
any are. What SQS refuses or loses is not sent again from here: the sweep does that, over the stream, so that losing all
costs only time. While SQS does not answer, or holds a whole window that nobody takes, the stream carries everything.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

import structlog
from botocore.exceptions import BotoCoreError, ClientError

from dispatcher.db.pool import Pool, single_statements
from dispatcher.db.statements import Statements
from dispatcher.wakeups.stream import StreamChannel
from kernel.sqs import BATCH, SqsLocation, sqs_client

if TYPE_CHECKING:
    from types_boto3_sqs.client import SQSClient
    from types_boto3_sqs.type_defs import SendMessageBatchRequestEntryTypeDef

_sql = Statements.load("dispatcher.wakeups", "sqs.sql")
_log = structlog.get_logger(__name__)
T = TypeVar("T")

WINDOW = 2_000
"""Wake-ups of a queue that may be out without an answer, or lie in SQS."""
_THREADS = 8
_PACE_SECONDS = 1.0
_LATEST, _MANY = 4, 50  # a quarter of it, and what is no matter of chance there
_BUSY_SECONDS = 0.05
_IDLE_SECONDS = 1.0
_DEPTH_SECONDS = 1.0
_RETRY_SECONDS = 5.0


class Pace:
    """How many wake-ups of a queue are answered within a second, more or less: within the last one; where the latest
    were many, as many as there would be at that rate, so that a burst is soon at its speed."""

    def __init__(self) -> None:
        self._answered: dict[str, deque[tuple[float, int]]] = {}

    def note(self, queue: str, answered: int, now: float) -> None:
        if answered > 0:
            self._answered.setdefault(queue, deque()).append((now, answered))

    def of(self, queue: str, now: float) -> int:
        answered = self._answered.get(queue, deque())
        while answered and answered[0][0] < now - _PACE_SECONDS:
            answered.popleft()
        latest = sum(count for at, count in answered if at >= now - _PACE_SECONDS / _LATEST)
        return max(sum(count for _, count in answered), latest * _LATEST if latest >= _MANY else 0)


class SqsChannel:
    """All queues of one prefix. The duties `send_pending`, `count` and `ask_depths` keep it going."""

    def __init__(
        self,
        location: SqsLocation,
        stream: StreamChannel,
        pool: Pool,
        unanswered: timedelta,
        *,
        window: int = WINDOW,
        client: "SQSClient | None" = None,
    ) -> None:
        self._location = location
        self._stream = stream
        self._pool = pool
        self._unanswered = unanswered
        self._window = window
        self._client = client or sqs_client(location)
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="sqs")
        self._urls: dict[str, str] = {}
        self._down_until: dict[str, float] = {}
        self._pending: deque[tuple[str, str]] = deque()  # queue, task id
        self._unanswered_by_queue: dict[str, int] = {}
        self._sent_since: dict[str, int] = {}
        self._depths: dict[str, int] = {}
        self._on_room: Callable[[], None] = lambda: None
        self._pace = Pace()
        self._to_send = asyncio.Event()
        self._out = asyncio.Event()

    def on_credit(self, signal: Callable[[], None]) -> None:
        """`signal` is called when there is new room."""
        self._on_room = signal

    def room(self) -> Mapping[str, int]:
        """What workers that watch from here have room for, less what is on its way to them. Where tasks are short, more
        are under way than workers wait for: as many as were answered within the last second."""
        told = self._stream.room()
        now = time.monotonic()
        room: dict[str, int] = {}
        for queue in self._stream.served_queues():
            room[queue] = told.get(queue, 0)
            if not self._is_down(queue):
                out = self._unanswered_by_queue.get(queue, 0) + self._sent_since.get(queue, 0)
                room[queue] = max(0, min(self._window, max(room[queue], self._pace.of(queue, now))) - out)
        return room

    def served_queues(self) -> Collection[str]:
        return self._stream.served_queues()

    def send(self, queue: str, task_ids: Sequence[str]) -> None:
        if self._is_down(queue):
            self._stream.send(queue, task_ids)
            return
        self._sent_since[queue] = self._sent_since.get(queue, 0) + len(task_ids)
        self._pending.extend((queue, task_id) for task_id in task_ids)
        self._to_send.set()
        self._out.set()

    def nudge(self, worker_id: str, task_ids: Sequence[str]) -> None:
        self._stream.nudge(worker_id, task_ids)

    async def send_pending(self) -> int:
        """A round: as many batches as there are threads. Answers how many ids were taken."""
        self._to_send.clear()
        batches: list[tuple[str, list[str]]] = []
        while self._pending and len(batches) < _THREADS:
            queue, batch = self._pending[0][0], list[str]()
            while self._pending and self._pending[0][0] == queue and len(batch) < BATCH:
                batch.append(self._pending.popleft()[1])
            batches.append((queue, batch))
        await asyncio.gather(*[self._in_thread(self._send_batch, queue, batch) for queue, batch in batches])
        return sum(len(batch) for _, batch in batches)

    async def wait_to_send(self) -> None:
        await self._to_send.wait()

    async def count(self) -> int:
        """Learns how many wake-ups are out, and so what room there is."""
        sent_before = dict(self._sent_since)
        async with single_statements(self._pool) as connection:
            cursor = await connection.execute(_sql.count_unanswered, {"unanswered": self._unanswered})
            found = dict(await cursor.fetchall())
        before = sum(self.room().values())
        now = time.monotonic()
        for queue, out in found.items():
            answered = self._unanswered_by_queue.get(queue, 0) + sent_before.get(queue, 0) - out
            self._pace.note(queue, answered, now)
        self._unanswered_by_queue = found
        # Sent while the statement ran: it may have seen them or not.
        self._sent_since = {q: n for q, sent in self._sent_since.items() if (n := sent - sent_before.get(q, 0)) > 0}
        if sum(self.room().values()) > before:
            self._on_room()
        return 0

    async def wait_to_count(self) -> None:
        """Soon, while wake-ups are out; else until one is, or for a while: a deploy may have brought a queue."""
        if any(self._unanswered_by_queue.values()):
            await asyncio.sleep(_BUSY_SECONDS)
            return
        self._out.clear()
        try:
            async with asyncio.timeout(_IDLE_SECONDS):
                await self._out.wait()
        except TimeoutError:
            return
        await asyncio.sleep(_BUSY_SECONDS)

    async def ask_depths(self) -> int:
        """Asks SQS what lies in the queues of which wake-ups are out, and in those that were full."""
        for queue in [queue for queue, out in self._unanswered_by_queue.items() if out or self._is_down(queue)]:
            await self.ask_depth(queue)
        return 0

    async def ask_depth(self, queue: str) -> None:
        """What SQS does not say stays as it was."""
        depth = await self._in_thread(self._depth, queue)
        if depth is not None:
            self._depths[queue] = depth

    async def wait_to_ask(self) -> None:
        await asyncio.sleep(_DEPTH_SECONDS)

    def close(self) -> None:
        """Starts no further call."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _in_thread(self, work: Callable[..., T], *arguments: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *arguments)

    def _is_down(self, queue: str) -> bool:
        """SQS does not take its wake-ups, or nobody takes them out of there."""
        return time.monotonic() < self._down_until.get(queue, 0.0) or self._depths.get(queue, 0) >= self._window

    def _send_batch(self, queue: str, task_ids: Sequence[str]) -> None:
        """Sends; what fails is left to the sweep."""
        url = self._url(queue)
        if url is None:
            return
        entries: list[SendMessageBatchRequestEntryTypeDef] = [
            {"Id": str(number), "MessageBody": task_id} for number, task_id in enumerate(task_ids)
        ]
        try:
            answer = self._client.send_message_batch(QueueUrl=url, Entries=entries)
        except (BotoCoreError, ClientError) as error:
            self._note_failure(queue, error)
            return
        if failed := answer.get("Failed"):
            _log.warning("SQS refused wake-ups", queue=queue, count=len(failed), code=failed[0].get("Code"))

    def _depth(self, queue: str) -> int | None:
        url = self._url(queue)
        if url is None:
            return None
        try:
            answer = self._client.get_queue_attributes(QueueUrl=url, AttributeNames=["ApproximateNumberOfMessages"])
        except (BotoCoreError, ClientError) as error:
            self._note_failure(queue, error)
            return None
        return int(answer["Attributes"]["ApproximateNumberOfMessages"])

    def _url(self, queue: str) -> str | None:
        """The queue's address; None where it cannot be had now."""
        if queue not in self._urls:
            try:
                self._urls[queue] = self._client.get_queue_url(QueueName=self._location.queue_name(queue))["QueueUrl"]
            except (BotoCoreError, ClientError) as error:
                self._note_failure(queue, error)
                return None
        return self._urls[queue]

    def _note_failure(self, queue: str, error: Exception) -> None:
        """For a while what is due goes over the stream."""
        self._urls.pop(queue, None)
        self._down_until[queue] = time.monotonic() + _RETRY_SECONDS
        name = self._location.queue_name(queue)
        _log.warning("SQS does not take wake-ups", queue=queue, sqs_queue=name, error=str(error))
