"""What live work feels of a rematerialization: how long events wait for their operator, at a hundred a second, while a
changed job runs a hundred thousand tasks again on the same worker; and what that costs the rebuild.

Each side is measured alone first, then both at once.
"""

import threading
import time
from collections.abc import Sequence

from bench.life import rows
from bench.percentiles import percentile
from bench.rest import at_rest
from bench.settings import Settings
from bench.stack import Database, Stack, ctl, wait_until
from bench.table import Measure
from dispatcher.db.statements import Statements

_sql = Statements.load("bench")

_RATE = 100
_LIMIT_SECONDS = 900.0

_LIVE = """
dag: {dag}
jobs:
  source:
    source: replay
    config: {{path: data/ticks.csv, cursor: n, rate: {rate}}}
    outputs: {{{dag}.ticks: {{cursor: {{column: n, type: int64}}, schema: {{n: int64}}}}}}
  first:
    operator: noop
    inputs: {{{dag}.ticks: {{}}}}
    outputs: {{{dag}.done: {{storage: none}}}}
"""
_REBUILT = """
dag: rebuilt
jobs:
  source:
    source: replay
    config: {{path: data/ticks.csv, cursor: n}}
    outputs: {{rebuilt.ticks: {{cursor: {{column: n, type: int64}}, schema: {{n: int64}}}}}}
  work:
    operator: noop
    inputs: {{rebuilt.ticks: {{}}}}
    outputs: {{rebuilt.done{number}: {{storage: none}}}}
"""


def measure(stack: Stack, settings: Settings) -> Sequence[Measure]:
    """Both sides alone, then together."""
    tasks, events = settings.scaled(100_000, 2_000), settings.scaled(2_000, 200)
    ticks = rows(range(tasks))
    stack.deploy(_REBUILT.format(number=0), {"data/ticks.csv": ticks})
    with stack.database() as database:
        wait_until(lambda: _done(database, "rebuilt", "work") >= tasks, _LIMIT_SECONDS, "the first version")
        at_rest(stack)
        alone = tasks / _rebuild(stack, 1, ticks)
        at_rest(stack)
        usual = _live(stack, database, "live-alone", events)
        took: list[float] = []
        rebuilding = threading.Thread(target=lambda: took.append(_rebuild(stack, 2, ticks)))
        rebuilding.start()
        meanwhile = _live(stack, database, "live-beside", events)
        went_on = rebuilding.is_alive()
        rebuilding.join()
    beside = tasks / took[0]
    p99 = percentile(usual, 99)
    limit = max(2 * p99, 50.0)
    note = "" if went_on else "the rebuild ended before the live events did"
    return [
        Measure(f"live, {_RATE} events a second: accepted to operator started, p99", p99, "ms"),
        Measure(
            f"the same while {tasks:,} tasks are rematerialized, p99",
            percentile(meanwhile, 99),
            "ms",
            f"<= {limit:.0f}",
            note=note,
        ),
        Measure("the same, p50", percentile(meanwhile, 50), "ms"),
        Measure("rematerialization alone", alone, "tasks/s"),
        Measure("rematerialization beside the live events, to that alone", beside / alone, "x", ">= 0.6"),
    ]


def _rebuild(stack: Stack, number: int, ticks: str) -> float:
    """Seconds from the deploy to the cutover."""
    folder = stack.home.root / f"rebuilt-{number}"
    (folder / "data").mkdir(parents=True)
    (folder / "data" / "ticks.csv").write_text(ticks, encoding="utf-8")
    (folder / "dag.yaml").write_text(_REBUILT.format(number=number), encoding="utf-8")
    began = time.monotonic()
    ctl(stack.home.root, "dag", "deploy", str(folder / "dag.yaml"), "--yes", "--wait")
    return time.monotonic() - began


def _live(stack: Stack, database: Database, dag: str, events: int) -> list[float]:
    """How long each event waited, in milliseconds; without the first ones, which waited for processes to start."""
    stack.deploy(_LIVE.format(dag=dag, rate=_RATE), {"data/ticks.csv": rows(range(events))})
    time.sleep(events / _RATE)  # the source takes that long, and counting what is done takes the time of others
    wait_until(lambda: _done(database, dag, "first") >= events, _LIMIT_SECONDS, f"the events of {dag}")
    found = sorted((accepted, began) for _, _, accepted, began in database.execute(_sql.starts, {"dag": dag}))
    return [(began - accepted) * 1000 for accepted, began in found[events // 10 :]]


def _done(database: Database, dag: str, job: str) -> int:
    row = database.execute(_sql.finished, {"dag": dag, "job": job, "first": b""}).fetchone()
    return int(row[0]) if row else 0
