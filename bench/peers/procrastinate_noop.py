"""Procrastinate: tasks that do nothing, deferred a thousand at a time while one worker runs twenty at once.

Time runs from the first defer to the end of the last task; the worker is up before.
"""

import asyncio
import json
import sys
import time

import uvloop
from procrastinate import App, PsycopgConnector

_DEFERRED_AT_ONCE = 1000
_CONCURRENCY = 20


async def main(tasks: int) -> float:
    app = App(connector=PsycopgConnector())
    warm, done = asyncio.Event(), asyncio.Event()
    count = 0

    @app.task(name="noop")
    async def noop() -> None:
        nonlocal count
        count += 1
        warm.set()
        if count > tasks:
            done.set()

    async with app.open_async():
        await app.schema_manager.apply_schema_async()
        worker = asyncio.create_task(
            app.run_worker_async(concurrency=_CONCURRENCY, install_signal_handlers=False, fetch_job_polling_interval=1)
        )
        await noop.defer_async()
        await warm.wait()
        started = time.perf_counter()
        for start in range(0, tasks, _DEFERRED_AT_ONCE):
            await noop.batch_defer_async(*[{} for _ in range(min(_DEFERRED_AT_ONCE, tasks - start))])
        await done.wait()  # the last ones are recorded a moment later
        while await app.job_manager.list_jobs_async(status="doing"):  # noqa: ASYNC110 -- nobody says so
            await asyncio.sleep(0.005)
        seconds = time.perf_counter() - started
        worker.cancel()
        await asyncio.gather(worker, return_exceptions=True)
    return seconds


if __name__ == "__main__":
    print(json.dumps({"seconds": uvloop.run(main(int(sys.argv[1])))}))
