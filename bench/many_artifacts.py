"""How soon the first row comes out of one file of a dataset that has 10^5 of them."""

import hashlib
import itertools
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

import ctl.connection
from bench.percentiles import percentile
from bench.settings import Settings
from bench.stack import Database, Stack, wait_until
from bench.table import Measure
from ctl.connection import Connection
from dispatcher.db.statements import Statements
from kernel.scopes import cursor_key
from traceapi.query.v1 import query_service_pb2 as pb
from traceapi.types.v1.scope_pb2 import CursorValue

_sql = Statements.load("bench", "many_artifacts.sql")
_DATASET = "many.rows"
_DOCUMENT = """
dag: many
jobs:
  rows:
    source: replay
    config: {path: rows.csv, cursor: number}
    outputs:
      many.rows: {cursor: {column: number, type: int64}, schema: {number: int64, value: int64}}
"""
_SECONDS = 60.0
_ARROW = pa.schema([pa.field("number", pa.int64()), pa.field("value", pa.int64())])


def measure(stack: Stack, settings: Settings) -> Sequence[Measure]:
    """Times in milliseconds, from the call to the end of an answer of one row."""
    files = settings.scaled(100_000, 2_000)
    stack.deploy(_DOCUMENT, {"rows.csv": "number,value\n0,0\n"})
    with stack.database() as database:

        def first_is_there() -> bool:
            return database.execute(_sql.artifacts, {"dataset_id": _DATASET}).fetchone() == (1,)

        wait_until(first_is_there, _SECONDS, f"the first file of {_DATASET}")
        _add(database, stack.home.root / "artifacts", range(1, files))
    with ctl.connection.connect(stack.home.root) as connection:
        numbers = itertools.islice(itertools.cycle(range(7, files, max(1, files // 97))), 10 + settings.scaled(100, 10))
        times = [_answered(connection, number) for number in numbers][10:]
    return [
        Measure(f"first row of one file of {files:,}, p50", percentile(times, 50), "ms", "<= 300", tuple(times)),
        Measure("the same, p99", percentile(times, 99), "ms"),
    ]


def _add(database: Database, store: Path, numbers: range) -> None:
    """A file of one row for each number, as one task would have left them: written, and recorded in one publication."""
    with database.transaction():
        database.execute(_sql.recorded)
        with database.cursor().copy(_sql.record) as copy:
            for row in _written(store, numbers):
                copy.write_row(row)
        database.execute(_sql.publish, {"dataset_id": _DATASET})
    database.execute("analyze")


def _written(store: Path, numbers: range) -> Iterator[tuple[str, bytes, int, bytes]]:
    """The key, the scope, the size and the digest of each."""
    (store / "data" / "many").mkdir(parents=True)
    for number in numbers:
        key = f"data/many/{uuid.uuid4()}.parquet"
        pq.write_table(pa.table({"number": [number], "value": [number * 7]}, schema=_ARROW), store / key)
        content = (store / key).read_bytes()
        scope = cursor_key(CursorValue(int64_value=number))
        yield key, scope, len(content), hashlib.sha256(content).digest()


def _answered(connection: Connection, number: int) -> float:
    """The row is in the last but one message of its answer; the time is that of the last."""
    sql = f'select value from "{_DATASET}" where number = {number}'  # noqa: S608 - a constant and a number
    begin = time.perf_counter()
    messages = list(connection.queries.Query(pb.QueryRequest(sql=sql)))
    elapsed = time.perf_counter() - begin
    assert messages[0].started.file_count == 1, messages[0]
    assert messages[-1].finished.row_count == 1, messages[-1]
    return elapsed * 1000
