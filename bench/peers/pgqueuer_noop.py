"""PgQueuer: tasks that do nothing, enqueued a thousand at a time while one worker takes them a hundred at a time.

Time runs from the first enqueue to the end of the last task; the worker is up before.
"""

import asyncio
import json
import sys
import time

import asyncpg
import uvloop
from pgqueuer.db import AsyncpgDriver
from pgqueuer.models import Job
from pgqueuer.qm import QueueManager
from pgqueuer.queries import Queries

_ENQUEUED_AT_ONCE = 1000
_TAKEN_AT_ONCE = 100


async def main(tasks: int) -> float:
    producer = Queries(AsyncpgDriver(await asyncpg.connect()))
    await producer.install()
    manager = QueueManager(Queries(AsyncpgDriver(await asyncpg.connect())))
    warm, done = asyncio.Event(), asyncio.Event()
    count = 0

    @manager.entrypoint("noop")
    async def noop(_job: Job) -> None:
        nonlocal count
        count += 1
        warm.set()
        if count > tasks:
            done.set()

    worker = asyncio.create_task(manager.run(batch_size=_TAKEN_AT_ONCE))
    await producer.enqueue(["noop"], [None], [0])
    await warm.wait()
    started = time.perf_counter()
    for start in range(0, tasks, _ENQUEUED_AT_ONCE):
        part = min(_ENQUEUED_AT_ONCE, tasks - start)
        await producer.enqueue(["noop"] * part, [None] * part, [0] * part)
    await done.wait()  # the last ones are recorded a moment later
    while sum(row.count for row in await producer.queue_size()):  # noqa: ASYNC110 -- nobody says so
        await asyncio.sleep(0.005)
    seconds = time.perf_counter() - started
    manager.shutdown.set()
    await worker
    return seconds


if __name__ == "__main__":
    print(json.dumps({"seconds": uvloop.run(main(int(sys.argv[1])))}))
