"""How soon a tiny query is answered: pinned, held against the gate, run in a process of its own."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from statistics import median

import ctl.connection
from bench import wide
from bench.percentiles import percentile
from bench.settings import Settings
from bench.stack import Stack
from bench.table import Measure
from traceapi.query.v1 import query_service_pb2 as pb

_ROWS = 10_000
_SQL = f'select count(*) from "{wide.DATASET}" where number = 3'  # noqa: S608 - a constant
_CALM_RATE, _BUSY_RATE = 5, 15
_CALLERS = 32


def measure(stack: Stack, settings: Settings) -> Sequence[Measure]:
    """Times in milliseconds, from the call to the end of its answer."""
    wide.make(stack, _ROWS)
    with ctl.connection.connect(stack.home.root) as connection, ThreadPoolExecutor(_CALLERS) as callers:

        def ask() -> float:
            begin = time.perf_counter()
            for _ in connection.queries.Query(pb.QueryRequest(sql=_SQL)):
                pass
            return (time.perf_counter() - begin) * 1000

        for _ in range(10):
            ask()
        calm = _at_rate(callers, ask, _CALM_RATE, settings.scaled(60, 5))
        busy = _at_rate(callers, ask, _BUSY_RATE, settings.scaled(60, 5))
    behind = median(busy[-len(busy) // 6 :]) / median(busy[: len(busy) // 6])
    return [
        Measure(f"a tiny query, {_CALM_RATE} a second, p50", percentile(calm, 50), "ms", "<= 15", tuple(calm)),
        Measure("the same, p99", percentile(calm, 99), "ms"),
        Measure(f"a tiny query, {_BUSY_RATE} a second, p50", percentile(busy, 50), "ms"),
        Measure("the same, p99", percentile(busy, 99), "ms"),
        Measure("its median in the last sixth of the time, to the first", behind, "x", "<= 2"),
    ]


def _at_rate(callers: ThreadPoolExecutor, ask: Callable[[], float], rate: int, seconds: int) -> list[float]:
    """Asked at fixed times, whether earlier ones have been answered or not."""
    begin = time.perf_counter()
    asked: list[Future[float]] = []
    for number in range(rate * seconds):
        time.sleep(max(0.0, begin + number / rate - time.perf_counter()))
        asked.append(callers.submit(ask))
    return [answer.result() for answer in asked]
