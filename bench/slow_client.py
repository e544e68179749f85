"""A client that reads 10 GB slowly: what queryd and the query's process hold for it meanwhile."""

import time
from collections.abc import Sequence

from google.protobuf.duration_pb2 import Duration

import ctl.connection
from bench.memory import MemorySampler
from bench.settings import Settings
from bench.stack import Stack
from bench.table import Measure
from traceapi.query.v1 import query_service_pb2 as pb

_ROW_BYTES = 1_000
_BYTES_A_SECOND = 100_000_000
_SAMPLE_SECONDS = 0.5
_LIMIT_SECONDS = 600


def measure(stack: Stack, settings: Settings) -> Sequence[Measure]:
    """At a hundred megabytes a second, so that queryd could be far ahead of it."""
    rows = settings.scaled(10_000_000, 300_000)
    # A column that no two rows share: nothing in it can be held once for many.
    sql = f"select lpad(i::varchar, {_ROW_BYTES}, '.') as filler from range({rows}) t(i)"  # noqa: S608 - numbers
    request = pb.QueryRequest(sql=sql, timeout=Duration(seconds=_LIMIT_SECONDS))
    pids = {"queryd": stack.pids["queryd"]}
    with ctl.connection.connect(stack.home.root) as connection, MemorySampler(pids, _SAMPLE_SECONDS) as memory:
        begin, received, answered = time.perf_counter(), 0, 0
        for message in connection.queries.Query(request):
            received += len(message.arrow_ipc)
            answered = message.finished.row_count
            time.sleep(max(0.0, begin + received / _BYTES_A_SECOND - time.perf_counter()))
        elapsed = time.perf_counter() - begin
    assert answered == rows, answered
    return [
        Measure("bytes to a slow client", received / 1e9, "GB"),
        Measure("received in", elapsed, "s"),
        Measure(
            "memory of queryd and its processes, the most", memory.peak_mib("queryd") * 2**20 / 1e6, "MB", "<= 500"
        ),
        Measure("the same, the last quarter to the second", memory.growth("queryd"), "x", "<= 1.2"),
    ]
