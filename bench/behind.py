"""How long a fresh event waits for its operator behind a million queued tasks of a backfill, in the same queue.

The tasks are inserted by SQL, as a backfill would leave them, while their DAG is paused; then fresh events come one by
one, as for the latencies of an idle stack: first while the backfill is paused, which shows what its rows alone cost,
then while the same worker works it off as fast as it can.
"""

import time
from collections.abc import Sequence

from bench import latency
from bench.life import rows
from bench.percentiles import percentile
from bench.settings import Settings
from bench.stack import Database, Stack, ctl, wait_until
from bench.table import Measure
from dispatcher.db.statements import Statements

_sql = Statements.load("bench")

_SETTLE_SECONDS = 60.0
_RUN_UP_SECONDS = 5.0
_DAG = "backlog"

_DOCUMENT = """
dag: backlog
jobs:
  source:
    source: replay
    config: {path: data/ticks.csv, cursor: n}
    outputs: {backlog.ticks: {cursor: {column: n, type: int64}, schema: {n: int64}}}
  work:
    operator: noop
    inputs: {backlog.ticks: {}}
    outputs: {backlog.done: {storage: none}}
"""


def measure(stack: Stack, settings: Settings) -> Sequence[Measure]:
    """Behind a backfill at rest, and behind one at work."""
    tasks, events = settings.scaled(1_000_000, 20_000), settings.scaled(250, 20)
    with stack.database() as database:
        _queue(stack, database, tasks)
        at_rest = latency.waits(stack, database, "fresh-at-rest", events).starts
        ctl(stack.home.root, "dag", "resume", _DAG)
        try:
            time.sleep(_RUN_UP_SECONDS)
            before, began = _left(database), time.monotonic()
            at_work = latency.waits(stack, database, "fresh", events).starts
            left, took = _left(database), time.monotonic() - began
        finally:
            ctl(stack.home.root, "dag", "pause", _DAG)
    note = "" if left else "the backfill ended before: what it says is of less than was asked for"
    name = f"behind {tasks:,} queued backfill tasks: accepted to operator started"
    return [
        Measure(f"{name}, p50", percentile(at_work, 50), "ms", note=note),
        Measure(f"{name}, p99", percentile(at_work, 99), "ms", "<= 50", note=note),
        Measure(f"{name}, while they are paused, p50", percentile(at_rest, 50), "ms"),
        Measure(f"{name}, while they are paused, p99", percentile(at_rest, 99), "ms"),
        Measure("behind: backfill tasks done meanwhile", (before - left) / took, "1/s"),
    ]


def _queue(stack: Stack, database: Database, tasks: int) -> None:
    stack.deploy(_DOCUMENT, {"data/ticks.csv": rows(range(1))})
    job = {"dag": _DAG}
    wait_until(lambda: bool(database.execute(_sql.floor_job, job).fetchone()), _SETTLE_SECONDS, f"the source of {_DAG}")
    ctl(stack.home.root, "dag", "pause", _DAG)
    database.execute(_sql.backlog, job | {"tasks": tasks})
    database.execute("vacuum (analyze) task")
    database.execute("vacuum (analyze) event")


def _left(database: Database) -> int:
    row = database.execute(_sql.queued, {"dag": _DAG}).fetchone()
    return int(row[0]) if row else 0
