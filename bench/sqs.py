"""No-op tasks whose wake-ups travel over SQS, beside what the local server and its client do at best, in turn.

At best is: as many threads as the product has send, receive and delete messages of that size, all at once, and nothing
else runs. A stack of its own serves this measure.
"""

import os
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from bench import invariants
from bench.life import BUILT_IN, live
from bench.settings import Settings
from bench.stack import Stack, running_stack
from bench.table import Measure
from kernel.ids import new_id
from kernel.sqs import BATCH, sqs_client
from tests.sqs_server import CREDENTIAL, SqsServer, running_sqs_server

if TYPE_CHECKING:  # packages of types only
    from types_boto3_sqs.type_defs import (
        DeleteMessageBatchRequestEntryTypeDef,
        SendMessageBatchRequestEntryTypeDef,
    )

_LIMIT_SECONDS = 180.0
_THREADS = 4


def measure(_stack: Stack, settings: Settings) -> Sequence[Measure]:
    """Needs the tests' SQS server (`make node`)."""
    tasks = settings.scaled(15_000, 2_000)
    rates: list[float] = []
    best: list[float] = []
    names = [f"sqs-{number}" for number in range(settings.rounds)]
    with running_sqs_server() as server, _woken_over(server), tempfile.TemporaryDirectory(prefix="sqs-") as folder:
        for queue in ("default", *names):
            server.make_queue("bench", queue)
        with running_stack(Path(folder)) as stack, stack.database() as database:
            for name in names:
                rates.append(live(stack, database, name, BUILT_IN, tasks, _LIMIT_SECONDS).rate)
                best.append(_at_best(server, tasks))
            broken = invariants.broken(stack, "sqs: ")
    ratios = [ours / at_best for ours, at_best in zip(rates, best, strict=True)]
    return [
        Measure("sqs: tasks a second", median(rates), "1/s", "", tuple(rates)),
        Measure("sqs: messages a second of the server at best", median(best), "1/s", "", tuple(best)),
        Measure("sqs: ours to the server at best", median(ratios), "x", ">= 0.8", tuple(ratios)),
        *broken,
    ]


def _at_best(server: SqsServer, count: int) -> float:
    """Messages a second that are sent, received and deleted at the same time."""
    client = sqs_client(server.location("bench"))
    url = server.make_queue("bench", "at-best")
    left, lock = count, threading.Lock()

    def send(batches: int) -> None:
        for _ in range(batches):
            entries: list[SendMessageBatchRequestEntryTypeDef] = [
                {"Id": str(number), "MessageBody": new_id()} for number in range(BATCH)
            ]
            client.send_message_batch(QueueUrl=url, Entries=entries)

    def receive() -> None:
        nonlocal left
        while left > 0:
            messages = client.receive_message(QueueUrl=url, MaxNumberOfMessages=BATCH).get("Messages", [])
            if messages:
                entries: list[DeleteMessageBatchRequestEntryTypeDef] = [
                    {"Id": str(n), "ReceiptHandle": m["ReceiptHandle"]} for n, m in enumerate(messages)
                ]
                client.delete_message_batch(QueueUrl=url, Entries=entries)
                with lock:
                    left -= len(messages)

    share = count // BATCH // _THREADS
    left = share * _THREADS * BATCH
    total = left
    started = time.monotonic()
    with ThreadPoolExecutor(2 * _THREADS) as threads:
        work = [threads.submit(send, share) for _ in range(_THREADS)]
        work += [threads.submit(receive) for _ in range(_THREADS)]
        for one in work:
            one.result()
    return total / (time.monotonic() - started)


@contextmanager
def _woken_over(server: SqsServer) -> Iterator[None]:
    """Programs that are started in the block take their wake-ups from the server."""
    variables = {**CREDENTIAL, "TRACE_WAKEUPS": server.url("bench")}
    before = {name: os.environ[name] for name in variables if name in os.environ}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name in variables:
            del os.environ[name]
        os.environ.update(before)
