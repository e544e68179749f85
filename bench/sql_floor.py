"""The same statements as a task's life has, from a script: what the database alone would allow.

One connection, one batch after the other, nothing between it and Postgres but psycopg: no verdicts, no wire, no
workers. A batch is four transactions, as in the product: events accepted, tasks released, claimed, ended.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import psycopg
from psycopg.rows import TupleRow, class_row

from bench.life import rows
from bench.stack import Database, Stack, wait_until
from dispatcher.db.arrays import ArrayDumper
from dispatcher.db.statements import Statements
from dispatcher.wakeups.dealing import JobLine
from kernel.ids import new_id
from kernel.scopes import cursor_key
from traceapi.types.v1.scope_pb2 import CursorValue

BATCH = 1000

_bench = Statements.load("bench")
_tasks = Statements.load("dispatcher.tasks")
_claims = Statements.load("dispatcher.tasks", "claim.sql")
_events = Statements.load("dispatcher.events")
_wakeups = Statements.load("dispatcher.wakeups")

_TOKEN = bytes(32)
_DOCUMENT = """
dag: {dag}
jobs:
  source:
    source: replay
    config: {{path: data/ticks.csv, cursor: n}}
    outputs: {{{dag}.ticks: {{cursor: {{column: n, type: int64}}, schema: {{n: int64}}}}}}
  work:
    operator: noop
    execution: {{queue: {dag}}}
    inputs: {{{dag}.ticks: {{}}}}
    outputs: {{{dag}.done: {{storage: none}}}}
"""


@dataclass(frozen=True, slots=True)
class Job:
    """The job that no worker has, and a run of its source that stands for one."""

    dag: str
    job_version_id: str
    source_task_id: str
    input_version_id: str
    output_version_id: str


def measure(stack: Stack, database: Database, dag: str, tasks: int) -> float:
    """Tasks per second, of a new DAG."""
    job = new_job(stack, database, dag)
    with connected(stack) as connection:
        run_batch(connection, job, 1, BATCH)  # so that statements are prepared
        started = time.perf_counter()
        for number in range(2, 2 + tasks // BATCH):
            run_batch(connection, job, number, BATCH)
        return tasks // BATCH * BATCH / (time.perf_counter() - started)


def new_job(stack: Stack, database: Database, dag: str) -> Job:
    """Deploys a DAG whose source has ended when this returns."""
    stack.deploy(_DOCUMENT.format(dag=dag), {"data/ticks.csv": rows(range(1))})
    found = {"dag": dag}
    wait_until(
        lambda: bool(database.execute(_bench.floor_job, found).fetchone()), 60, f"the source of {dag} to have ended"
    )
    row = database.execute(_bench.floor_job, found).fetchone()
    assert row is not None
    job_version_id, _, input_version_id, output_version_id = row
    producer = new_id()
    database.execute(_bench.stand_in, found | {"task_id": producer})
    return Job(dag, job_version_id, producer, input_version_id, output_version_id)


@contextmanager
def connected(stack: Stack) -> Iterator[psycopg.Connection[TupleRow]]:
    """A connection that sends lists as the dispatcher's do."""
    with psycopg.connect(stack.conninfo(), prepare_threshold=1) as connection:
        connection.adapters.register_dumper(list, ArrayDumper)
        yield connection


def run_batch(connection: psycopg.Connection[TupleRow], job: Job, number: int, size: int) -> None:
    """The whole life of so many tasks; of one job, each `number` once."""
    keys = [cursor_key(CursorValue(int64_value=number * size + place)) for place in range(size)]
    _accept(connection, job, job.input_version_id, [job.source_task_id] * size, keys)
    connection.commit()
    task_ids = _release(connection, job, size)
    connection.commit()
    assert len(task_ids) == size
    _claim(connection, job, task_ids)
    connection.commit()
    connection.execute(_tasks.job_versions_of, {"task_ids": task_ids}).fetchall()
    connection.execute(_events.job_outputs, {"job_version_ids": [job.job_version_id]}).fetchall()
    connection.execute(_events.share_dags, {"class": 1, "job_version_ids": [job.job_version_id]})
    connection.execute(_tasks.lock_tasks, {"task_ids": task_ids}).fetchall()
    _accept(connection, job, job.output_version_id, task_ids, keys)
    _end(connection, job, task_ids)
    connection.commit()


def _release(connection: psycopg.Connection[TupleRow], job: Job, size: int) -> list[str]:
    with connection.cursor(row_factory=class_row(JobLine)) as cursor:
        lines = cursor.execute(_wakeups.job_lines, {"queue": job.dag, "room": size, "limited": []}).fetchall()
    picked = {
        "job_version_ids": [line.job_version_id for line in lines],
        "origins": [line.origin for line in lines],
        "counts": [line.ready for line in lines],
        "covered": [line.covered for line in lines],
        "before": [line.before for line in lines],
    }
    return sorted(row[0] for row in connection.execute(_wakeups.release, picked).fetchall())


def _accept(
    connection: psycopg.Connection[TupleRow], job: Job, version_id: str, task_ids: list[str], keys: Sequence[bytes]
) -> None:
    size, publication_id = len(keys), new_id()
    spans: dict[str, Any] = {
        "version_ids": [version_id] * size,
        "task_ids": task_ids,
        "firsts": list(keys),
        "lasts": list(keys),
    }
    connection.execute(_events.taken_spans, spans).fetchall()
    connection.execute(
        _events.insert_events,
        spans
        | {
            "publication_id": publication_id,
            "event_ids": [new_id() for _ in keys],
            "parts": list(range(1, size + 1)),
            "kinds": [1] * size,
            "revisions": [0] * size,
            "attempts": [1] * size,
            "artifact_ids": [None] * size,
            "digests": [_TOKEN] * size,
            "manifests": [None] * size,
            "event_times": [None] * size,
            "origins": ["live"] * size,
        },
    )
    published = {"version_ids": [version_id], "publication_ids": [publication_id], "event_counts": [size]}
    connection.execute(_events.publish, published)


def _claim(connection: psycopg.Connection[TupleRow], job: Job, task_ids: list[str]) -> None:
    size = len(task_ids)
    connection.execute(_tasks.job_versions_of, {"task_ids": task_ids}).fetchall()
    connection.execute(_tasks.lock_tasks, {"task_ids": task_ids}).fetchall()
    connection.execute(_claims.input_heads, {"job_version_ids": [job.job_version_id]}).fetchall()
    connection.execute(
        _claims.mark_claimed,
        {
            "task_ids": task_ids,
            "stream_epochs": [None] * size,
            "job_version_ids": [job.job_version_id],
            "pins": [None],
            "request_id": new_id(),
            "token_digest": _TOKEN,
            "worker_id": "floor",
            "lease": timedelta(seconds=60),
        },
    )
    connection.execute(_claims.claimed, {"task_ids": task_ids}).fetchall()


def _end(connection: psycopg.Connection[TupleRow], job: Job, task_ids: list[str]) -> None:
    size = len(task_ids)
    connection.execute(_tasks.retry_policies, {"job_version_ids": [job.job_version_id]}).fetchall()
    connection.execute(
        _tasks.record_ends,
        {
            "task_ids": task_ids,
            "running": "running",
            "states": ["succeeded"] * size,
            "failed": [0] * size,
            "lost": [0] * size,
            "waits": [timedelta()] * size,
            "reasons": [""] * size,
            "outcomes": ["succeeded"] * size,
            "error_classes": [None] * size,
            "messages": [""] * size,
            "tracebacks": [""] * size,
            "usages": [None] * size,
            "accepted": [1] * size,
            "differs": [False] * size,
        },
    )
