"""One task that emits a million events, each of them a task of one consumer.

The consumer's queue has no worker, so that nothing but the fan-out is measured: from the acceptance of the event that
causes the task to the end of the task, when all its events are accepted and their tasks queued. In a further run the
dispatcher and the worker are killed in between, and it has to end whole all the same; how long that takes is mostly the
lease of the worker that was killed.
"""

import os
import signal
from collections.abc import Sequence
from statistics import median

from bench.life import rows
from bench.memory import MemorySampler
from bench.settings import Settings
from bench.stack import Database, Stack, wait_until
from bench.table import Measure
from dispatcher.db.statements import Statements

_sql = Statements.load("bench")

_LIMIT_SECONDS = 300.0
_SETTLE_SECONDS = 60.0

_DOCUMENT = """
dag: {dag}
jobs:
  source:
    source: replay
    config: {{path: data/ticks.csv, cursor: n}}
    outputs: {{{dag}.ticks: {{cursor: {{column: n, type: int64}}, schema: {{n: int64}}}}}}
  fan:
    operator: noop
    config: {{events: {events}}}
    execution: {{queue: {dag}}}
    inputs: {{{dag}.ticks: {{}}}}
    outputs: {{{dag}.parts: {{storage: none}}}}
  work:
    operator: noop
    execution: {{queue: {dag}-nobody}}
    inputs: {{{dag}.parts: {{}}}}
    outputs: {{{dag}.done: {{storage: none}}}}
"""


def measure(stack: Stack, settings: Settings) -> Sequence[Measure]:
    """Undisturbed runs, and one with the kills."""
    events = settings.scaled(1_000_000, 20_000)
    name = f"fan-out of {events:,}"
    took: list[float] = []
    with stack.database() as database:
        with MemorySampler({"dispatcher": stack.pids["dispatcher"]}, interval=0.2) as memory:
            for number in range(settings.scaled(3, 1)):
                _deploy(stack, dag := f"fan-{number}", events)
                with stack.worker(dag):
                    wait_until(lambda: _ended(database, dag), _LIMIT_SECONDS, f"the fan-out of {dag}")
                took.append(_seconds(database, dag))
                _require_whole(database, dag, events)
        killed = _killed(stack, database, "fan-killed", events)
    return [
        Measure(f"{name}: event accepted to all accepted", median(took), "s", "<= 40", tuple(took)),
        Measure(f"{name}: events per second", events / median(took), "1/s"),
        Measure(f"{name}: peak memory of the dispatcher", memory.peak_mib("dispatcher") * 2**20 / 1e6, "MB", "<= 500"),
        *(Measure(f"{name}, killed in between: {what}", value, unit, target) for what, value, unit, target in killed),
    ]


def _killed(stack: Stack, database: Database, dag: str, events: int) -> list[tuple[str, float, str, str]]:
    """The dispatcher at a third of the events, the worker at two thirds."""
    _deploy(stack, dag, events)
    with stack.worker(dag) as worker:
        wait_until(lambda: _parts(database, dag)[0] > events / 3, _LIMIT_SECONDS, f"a third of {dag}")
        os.kill(stack.pids["dispatcher"], signal.SIGKILL)
        wait_until(lambda: _parts(database, dag)[0] > events * 2 / 3, _LIMIT_SECONDS, f"two thirds of {dag}")
        os.killpg(worker, signal.SIGKILL)
    before = _parts(database, dag)[0]
    with stack.worker(dag):
        wait_until(lambda: _ended(database, dag), _LIMIT_SECONDS, f"the fan-out of {dag}")
    made, distinct, tasks = _parts(database, dag)
    return [
        ("events accepted before the last kill", before, "events", f"<= {events - 1}"),
        ("events missing or doubled", abs(events - distinct) + made - distinct, "events", "<= 0"),
        ("tasks missing or doubled", abs(events - tasks), "tasks", "<= 0"),
        ("event accepted to all accepted", _seconds(database, dag), "s", ""),
    ]


def _deploy(stack: Stack, dag: str, events: int) -> None:
    stack.deploy(_DOCUMENT.format(dag=dag, events=events), {"data/ticks.csv": rows(range(1))})


def _ended(database: Database, dag: str) -> bool:
    return database.execute(_sql.fanned_out, {"dag": dag}).fetchone() is not None


def _seconds(database: Database, dag: str) -> float:
    row = database.execute(_sql.fanned_out, {"dag": dag}).fetchone()
    return float(row[0]) if row else float("nan")


def _parts(database: Database, dag: str) -> tuple[int, int, int]:
    row = database.execute(_sql.parts, {"dag": dag}).fetchone()
    return (row[0], row[1], row[2]) if row else (0, 0, 0)


def _require_whole(database: Database, dag: str, events: int) -> None:
    if (found := _parts(database, dag)) != (events, events, events):
        raise RuntimeError(f"{dag} has {found} events, distinct ones and tasks where {events} were due")
