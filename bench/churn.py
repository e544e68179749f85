"""Whether the hot tables stay as they are while tasks come and go: `make bench-churn`.

Five rotations of tasks go through their whole life, by the statements of the product (`sql_floor`), and each rotation
is moved out by the duty of the dispatcher that runs beside it. The duty is kept waiting until a rotation is complete:
what the tables hold at most is a rotation, however fast the machine is. Nothing is vacuumed but by the server itself.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.settings import Settings
from bench.sql_floor import BATCH, Job, connected, new_job, run_batch
from bench.stack import Database, Stack, running_stack, wait_until
from bench.table import Measure, report
from dispatcher.db.statements import Statements
from dispatcher.tasks.finished import ALONE

_sql = Statements.load("bench")

TASKS = 2_000_000
ROTATIONS = 5
_LIVE_SECONDS = 5
_SETTLE_SECONDS = 1_200.0
_MIB = 2**20
_PARTS = ("task, its rows", "task, its indexes", "attempt, its rows", "attempt, its indexes")


@dataclass(frozen=True, slots=True)
class Rotation:
    """Tasks made and ended a second; seconds until all had left; bytes, in the order of `_PARTS`, and by index."""

    made: float
    cleared: float
    sizes: tuple[int, ...]
    indexes: dict[str, int]


def measure(stack: Stack, tasks: int) -> Sequence[Measure]:
    """So many tasks in all."""
    with stack.database() as database:
        job = new_job(stack, database, "churn")
        batches = max(1, tasks // ROTATIONS // BATCH)
        rotations = [_rotate(stack, database, job, number, batches) for number in range(ROTATIONS)]
        found = _row(database, _sql.tasks_of, job_version_id=job.job_version_id)
    return [*_rows_of(rotations), *_of_the_whole(batches * BATCH * ROTATIONS, found)]


def _rotate(stack: Stack, database: Database, job: Job, number: int, batches: int) -> Rotation:
    """Makes and ends the tasks, and returns when the last of them has left the hot tables."""
    with stack.database() as keeper, connected(stack) as connection:
        keeper.execute(_sql.hold_back, {"key": ALONE})
        began = time.monotonic()
        for batch in range(1 + number * batches, 1 + (number + 1) * batches):
            run_batch(connection, job, batch, BATCH)
        made = time.monotonic()
    wait_until(lambda: _row(database, _sql.unmoved)[0] == 0, _SETTLE_SECONDS, f"rotation {number + 1} to be moved")
    took = made - began, time.monotonic() - made
    sizes, indexes = _row(database, _sql.sizes), database.execute(_sql.index_sizes).fetchall()
    rotation = Rotation(batches * BATCH / took[0], took[1], sizes, dict(indexes))
    print(f"rotation {number + 1}: {rotation}", file=sys.stderr)
    return rotation


def _rows_of(rotations: Sequence[Rotation]) -> list[Measure]:
    first, last = rotations[0], rotations[-1]
    slowest = min(rotation.made for rotation in rotations)
    longest = max(rotation.cleared for rotation in rotations)
    note = f"they stay for {_LIVE_SECONDS} s"
    measures = [
        Measure("churn: tasks made and ended, in the slowest rotation", slowest, "1/s"),
        Measure("churn: from a rotation's end until all of it was moved, longest", longest, "s", note=note),
    ]
    for index, part in enumerate(_PARTS):
        name = f"churn: {part}"
        measures.append(Measure(f"{name}, after the first rotation", first.sizes[index] / _MIB, "MiB"))
        measures.append(Measure(f"{name}, after the last", last.sizes[index] / _MIB, "MiB"))
        growth = max(r.sizes[index] for r in rotations) / first.sizes[index]
        measures.append(Measure(f"{name}, the most in any to the first", growth, "x", "<= 1.2"))
    return measures


def _of_the_whole(tasks: int, found: Sequence[Any]) -> list[Measure]:
    count, distinct, counted, attempts = found
    return [
        Measure("churn: tasks", tasks, "tasks"),
        Measure("churn: tasks that are not there as succeeded", tasks - distinct, "tasks", "<= 0"),
        Measure("churn: tasks that are there twice", count - distinct, "tasks", "<= 0"),
        Measure("churn: tasks moved and not counted, or counted twice", abs(tasks - counted), "tasks", "<= 0"),
        Measure("churn: attempts lost, or there twice", abs(tasks - attempts), "attempts", "<= 0"),
    ]


def _row(database: Database, statement: str, **values: object) -> tuple[Any, ...]:
    row = database.execute(statement, values).fetchone()
    assert row is not None
    return row


def measure_alone(_stack: Stack | None, settings: Settings) -> Sequence[Measure]:
    """On a stack of its own, whose tables nothing else has filled."""
    return _alone(settings.scaled(TASKS, 20_000))


def _alone(tasks: int) -> Sequence[Measure]:
    os.environ["TRACE_FINISHED_LIVE_SECONDS"] = str(_LIVE_SECONDS)  # else each rotation would wait for a minute
    try:
        with tempfile.TemporaryDirectory(prefix="churn-") as folder, running_stack(Path(folder)) as stack:
            return measure(stack, tasks)
    finally:
        del os.environ["TRACE_FINISHED_LIVE_SECONDS"]


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench.churn", description=__doc__)
    parser.add_argument("--tasks", type=int, default=TASKS, help="in all rotations together")
    arguments = parser.parse_args()
    return 0 if report("churn", _alone(arguments.tasks), seed=0) else 1


if __name__ == "__main__":
    sys.exit(main())
