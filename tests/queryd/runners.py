"""A runner of queries over cells that a test plays."""

from collections.abc import Callable
from typing import Any, cast

from kernel.ids import new_id
from queryd.aftermath import Aftermath
from queryd.complaints import Complaints
from queryd.pinning import Pinning
from queryd.preparing import Preparation
from queryd.query_parts import AnswerLimits
from queryd.resolve import Resolver
from queryd.run_query import QueryRunner
from queryd.running import RunningQueries
from queryd.watch import Watcher
from traceapi.control.v1 import query_record_pb2 as record_pb


def runner_of(
    cells: object,
    aftermath: Aftermath,
    queries: RunningQueries | None = None,
    record: Callable[[record_pb.QueryRecord], None] = lambda record: None,
    *,
    max_rows: int = 1,
    max_bytes: int = 1 << 20,
    stub: object = None,
) -> QueryRunner:
    """`cells` are as a CellPool; `stub` is as that of a DatasetService. There are no files."""
    limits = AnswerLimits(max_rows, max_bytes)
    queries = queries or RunningQueries(1)
    resolver, files = Resolver(cast("Any", stub), 60), cast("Any", None)
    preparation = Preparation(
        *(cast("Any", cells), Pinning(resolver, aftermath, queries), resolver, files, limits, Complaints(files))
    )
    return QueryRunner(preparation, queries, Watcher(resolver), aftermath, record, new_id)
