"""Follows re-runs until all have ended, and what they caused downstream: a bar with counts and ETA on a terminal."""

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ctl.connection import CALL_SECONDS, Connection
from ctl.render import console
from ctl.render.values import FINAL_STATES
from traceapi.control.v1 import task_service_pb2 as api
from traceapi.control.v1.rerun_pb2 import RerunEffect, RerunJob, RerunReader
from traceapi.types.v1 import task_pb2

_LOOK_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Count:
    """Tasks of origin backfill: those that have ended, the dead among them, and those that have not."""

    ended: int = 0
    dead: int = 0
    open: int = 0


@dataclass(frozen=True, slots=True)
class Concerned:
    """The jobs that a re-run makes tasks of, downstream too, as (DAG, job). What else is run again in their DAGs is
    another one's."""

    jobs: frozenset[tuple[str, str]]

    @classmethod
    def by(cls, jobs: Iterable[RerunJob], readers: Iterable[RerunReader]) -> Self:
        """Of a dry run's answer."""
        named = {(job.dag, job.job) for job in jobs}
        follow = {(one.dag, one.job) for one in readers if one.effect != RerunEffect.RERUN_EFFECT_READS_ONLY}
        return cls(frozenset(named | follow))


def count_reruns(connection: Connection, concerned: Concerned) -> Count:
    """Raises grpc.RpcError."""
    dags = {dag for dag, _ in concerned.jobs}
    request = api.CountTasksRequest(
        dag=next(iter(dags)) if len(dags) == 1 else "", origin=task_pb2.TASK_ORIGIN_BACKFILL
    )
    found = connection.tasks.CountTasks(request, timeout=CALL_SECONDS).counts
    counts = [row for row in found if (row.dag, row.job) in concerned.jobs]
    return Count(
        ended=sum(row.count for row in counts if row.state in FINAL_STATES),
        dead=sum(row.count for row in counts if row.state == task_pb2.TASK_STATE_DEAD),
        open=sum(row.count for row in counts if row.state not in FINAL_STATES),
    )


def follow_reruns(connection: Connection, concerned: Concerned, before: Count) -> Count:
    """Until none is open: what a task causes is there before it has ended. Raises grpc.RpcError."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    screen = console.stderr()
    with Progress(*columns, console=screen, transient=True, disable=not screen.is_terminal) as progress:
        bar = progress.add_task("running again", total=None)
        while True:
            now = count_reruns(connection, concerned)
            done = max(now.ended - before.ended, 0)
            progress.update(bar, completed=done, total=done + now.open)
            if not now.open:
                return now
            time.sleep(_LOOK_SECONDS)
