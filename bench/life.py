"""Tasks that do nothing, through their whole life: event accepted, task, wake-up, claim, an event emitted, completed.

A first source warms the operator's process up with a few events. Then a further worker starts, for the queue of a
second source, which emits all the others as fast as they are accepted. Time runs from the first of these events to the
end of the last task, by the database's clock, so making the events is in it.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from bench.cpu import cpu_by_program
from bench.stack import Database, Stack, wait_until
from dispatcher.db.statements import Statements
from kernel.scopes import cursor_key
from traceapi.types.v1.scope_pb2 import CursorValue

sql = Statements.load("bench")

_WARM = 10
_SETTLE_SECONDS = 60.0

_DOCUMENT = """
dag: {dag}
jobs:
  warm:
    source: replay
    config: {{path: data/warm.csv, cursor: n}}
    outputs: {{{dag}.ticks: {ticks}}}
  load:
    source: replay
    config: {{path: data/load.csv, cursor: n}}
    execution: {{queue: {dag}}}
    outputs: {{{dag}.ticks: {ticks}}}
  work:
    {work}
    inputs: {{{dag}.ticks: {{}}}}
    outputs: {{{dag}.done: {{storage: none}}}}
"""
_TICKS = "{writers: many, cursor: {column: n, type: int64}, schema: {n: int64}}"

BUILT_IN = "operator: noop"
PYTHON = "operator: python\n    runtime: python3.11\n    code: {bundle: ./code, entrypoint: 'noop:process'}"

_CODE = '''
def process(task):
    """Emits one event about the task's own scope."""
    (output,) = task.job.outputs
    task.emit(output)
'''


@dataclass(frozen=True, slots=True)
class Life:
    """What a run took. CPU is by program, in microseconds a task."""

    tasks: int
    seconds: float
    cpu_microseconds: Mapping[str, float]

    @property
    def rate(self) -> float:
        """Tasks per second."""
        return self.tasks / self.seconds


def live(stack: Stack, database: Database, dag: str, work: str, tasks: int, limit_seconds: float) -> Life:
    """Runs so many tasks of a new DAG. `work` is `BUILT_IN` or `PYTHON`. Raises TooSlow."""
    document = _DOCUMENT.format(dag=dag, work=work, ticks=_TICKS)
    files = {
        "data/warm.csv": rows(range(_WARM)),
        "data/load.csv": rows(range(_WARM, _WARM + tasks)),
        "code/noop.py": _CODE,
    }
    stack.deploy(document, files)
    wait_until(lambda: finished(database, dag, 0)[0] == _WARM, _SETTLE_SECONDS, f"the first tasks of {dag}")
    with stack.worker(dag) as source:
        pids = {**stack.pids, "source's worker": source}
        before = cpu_by_program(pids)
        wait_until(
            lambda: not (unfinished(database, dag, "load") or unfinished(database, dag, "work")),
            limit_seconds,
            f"{tasks} tasks of {dag}",
        )
        after = cpu_by_program(pids)
    count, seconds = finished(database, dag, _WARM)
    if count != tasks:
        raise RuntimeError(f"{count} of {tasks} tasks of {dag} succeeded")
    return Life(tasks, seconds, {name: (after[name] - before.get(name, 0)) * 1e6 / tasks for name in after})


def rows(numbers: range) -> str:
    """A CSV file of one column, `n`."""
    return "\n".join(["n", *map(str, numbers)]) + "\n"


def unfinished(database: Database, dag: str, job: str) -> bool:
    row = database.execute(sql.unfinished, {"dag": dag, "job": job}).fetchone()
    return bool(row and row[0])


def finished(database: Database, dag: str, first: int) -> tuple[int, float]:
    """Tasks of `work` that succeeded about cursors from `first` on, and the seconds that they took in all."""
    key = cursor_key(CursorValue(int64_value=first))
    row = database.execute(sql.finished, {"dag": dag, "job": "work", "first": key}).fetchone()
    return (row[0], row[1]) if row else (0, 0.0)
