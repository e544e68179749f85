"""Procrastinate: how long a task waits for its worker, and a task that a task deferred; nothing else runs.

One chain of three at a time, each 200 ms after the one before. Seconds, from before the call that defers to the begin,
and from begin to begin.
"""

import asyncio
import json
import sys
import time
from itertools import pairwise

import uvloop
from procrastinate import App, PsycopgConnector

_CONCURRENCY = 20
_CHAIN = 3
_PAUSE_SECONDS = 0.2


async def main(chains: int) -> dict[str, list[float]]:
    app = App(connector=PsycopgConnector())
    begins: asyncio.Queue[float] = asyncio.Queue()

    @app.task(name="link")
    async def link(left: int) -> None:
        begins.put_nowait(time.perf_counter())
        if left > 1:
            await link.defer_async(left=left - 1)

    starts: list[float] = []
    hops: list[float] = []
    async with app.open_async():
        await app.schema_manager.apply_schema_async()
        worker = asyncio.create_task(app.run_worker_async(concurrency=_CONCURRENCY, install_signal_handlers=False))
        for number in range(chains + 1):
            await asyncio.sleep(_PAUSE_SECONDS)
            deferred = time.perf_counter()
            await link.defer_async(left=_CHAIN)
            times = [await begins.get() for _ in range(_CHAIN)]
            if number:  # the first waited for the worker to start
                starts.append(times[0] - deferred)
                hops += [after - before for before, after in pairwise(times)]
        worker.cancel()
        await asyncio.gather(worker, return_exceptions=True)
    return {"starts": starts, "hops": hops}


if __name__ == "__main__":
    print(json.dumps(uvloop.run(main(int(sys.argv[1])))))
