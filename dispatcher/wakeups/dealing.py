"""Who gets the places of a queue: classes by their shares (metering.py), in a class DAGs in turn, in a DAG its jobs.

A turn is whose least is out, so that a backlog never keeps others waiting. Pure. Runs of sources come first and count
nowhere. A run of an ordered job is one place, and a stream keeps its order across classes.
"""

import heapq
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from dispatcher.wakeups.metering import QueueSettings, Room, TaskClass, class_of


@dataclass(frozen=True, slots=True)
class JobLine:
    """The tasks of one origin of one job: how many are out, how many may go, and the first scope of these.

    `covered` and `before` bound the scopes of those that may go. `staged`: it is being built, and nobody waits for it.
    `stranded`: some of those that are out wait for no claim any more; they are withdrawn before it is dealt.
    """

    job_version_id: str
    dag: str
    ordered: bool
    max_concurrency: int | None
    origin: str
    covered: bytes
    before: bytes
    open: int
    ready: int
    first: bytes | None
    staged: bool = False
    stranded: bool = False

    @property
    def task_class(self) -> TaskClass | None:
        return class_of(self.origin, staged=self.staged)

    @property
    def places(self) -> int:
        """What it has out."""
        return min(self.open, 1) if self.ordered else self.open


class Pick(NamedTuple):
    """The first `tasks` of the line go."""

    line: JobLine
    tasks: int


def deal(lines: Sequence[JobLine], settings: QueueSettings, workers_room: int) -> list[Pick]:
    """What goes: at most `workers_room` tasks, which is what workers can take now."""
    picks: list[Pick] = []
    for line in lines:
        if line.task_class is None and (tasks := min(line.ready, workers_room)):
            picks.append(Pick(line, tasks))
            workers_room -= tasks
    room = Room.of(settings, places_by_class(lines), workers_room)
    picks += [Pick(standing.line, standing.taken) for standing in _stand(lines, room) if standing.taken]
    return picks


def places_by_class(lines: Iterable[JobLine]) -> dict[TaskClass, int]:
    """What is out."""
    out = dict.fromkeys(TaskClass, 0)
    for line in lines:
        if line.task_class is not None:
            out[line.task_class] += line.places
    return out


_UNLIMITED = 1 << 40


@dataclass(slots=True)
class _Limit:
    """What a job may still have out, in all classes together."""

    left: int


@dataclass(slots=True)
class _Standing:
    """A line whose tasks are dealt out."""

    line: JobLine
    left: int
    limit: _Limit
    taken: int = 0


def _stand(lines: Sequence[JobLine], room: Room) -> list[_Standing]:
    """Deals until the places or the tasks are used up."""
    standings = _standings(lines)
    if _all_fit(standings, room):
        return [replace(standing, taken=standing.left) for standing in standings]
    turns = {
        task_class: _Turns([s for s in standings if s.line.task_class is task_class], lines, task_class)
        for task_class in TaskClass
    }
    while (task_class := room.next_of([c for c, turn in turns.items() if turn.any_left()])) is not None:
        turns[task_class].take()
        room.take(task_class)
    return standings


def _all_fit(standings: Sequence[_Standing], room: Room) -> bool:
    """Most rounds: there is room for all that may go, so it does not matter whose turn it is."""
    unlimited = all(standing.line.max_concurrency is None for standing in standings)
    return unlimited and sum(standing.left for standing in standings) <= room.free - room.kept


def _standings(lines: Sequence[JobLine]) -> list[_Standing]:
    heads: dict[str, JobLine] = {}
    limits: dict[str, _Limit] = {}
    for line in lines:
        if line.ordered and line.first is not None:
            head = heads.setdefault(line.job_version_id, line)
            if head.first is not None and line.first < head.first:
                heads[line.job_version_id] = line
        limit = limits.setdefault(line.job_version_id, _Limit(line.max_concurrency or _UNLIMITED))
        limit.left -= line.places
    return [
        _Standing(line, line.ready, limits[line.job_version_id])
        for line in lines
        if line.ready and line.task_class is not None and (not line.ordered or heads[line.job_version_id] is line)
    ]


class _Turns:
    """The DAGs of one class, and in each its jobs, by what they have out."""

    def __init__(self, standings: Sequence[_Standing], lines: Sequence[JobLine], task_class: TaskClass) -> None:
        jobs: dict[str, list[tuple[int, tuple[str, str], _Standing]]] = {}
        for standing in standings:
            line = standing.line
            key = line.job_version_id, line.origin  # what is staged has several origins in one class
            jobs.setdefault(line.dag, []).append((line.places, key, standing))
        out = dict.fromkeys(jobs, 0)
        for line in lines:
            if line.task_class is task_class and line.dag in out:
                out[line.dag] += line.places
        for in_dag in jobs.values():
            heapq.heapify(in_dag)
        self._dags = [(out[dag], dag, in_dag) for dag, in_dag in jobs.items()]
        heapq.heapify(self._dags)

    def any_left(self) -> bool:
        """Whether a task may go. Passes over jobs that have as much out as they may."""
        while self._dags:
            jobs = self._dags[0][2]
            if jobs[0][2].limit.left > 0:
                return True
            heapq.heappop(jobs)
            if not jobs:
                heapq.heappop(self._dags)
        return False

    def take(self) -> None:
        """The next one in turn goes; only where `any_left`."""
        dag_places, dag, jobs = self._dags[0]
        places, job, standing = jobs[0]
        standing.taken += 1
        standing.left -= 1
        standing.limit.left -= 1
        if standing.left:
            heapq.heapreplace(jobs, (places + 1, job, standing))
        else:
            heapq.heappop(jobs)
        if jobs:
            heapq.heapreplace(self._dags, (dag_places + 1, dag, jobs))
        else:
            heapq.heappop(self._dags)
