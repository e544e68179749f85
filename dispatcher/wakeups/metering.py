"""What the classes of a queue get of its room. Pure: of what people set, and of what is out.

The class goes next that has least out, measured by its share: so a class uses what others leave free, and where several
have work, what is out comes to stand in the proportion of the shares, with a place for each that the window has room
for. Places are taken back from nobody. So that a fresh event finds one however long the tasks of a rebuild take, only
live tasks take the last free places, as long as fewer of them than the reserve are out.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum


class TaskClass(StrEnum):
    """What a task is released as, as TASK_CLASS_* of the contract; the most urgent first."""

    LIVE = "live"
    REMATERIALIZATION = "rematerialization"
    BACKFILL = "backfill"


CLASS_OF_ORIGIN: Mapping[str, TaskClass] = {
    "live": TaskClass.LIVE,
    "replay": TaskClass.REMATERIALIZATION,
    "backfill": TaskClass.BACKFILL,
}
"""By task_origin. The run of a source is of no class: it may never end, so it counts nowhere."""

_URGENCY = {task_class: place for place, task_class in enumerate(TaskClass)}


def class_of(origin: str, *, staged: bool) -> TaskClass | None:
    """The class of a task by its task_origin; whatever a staged job does is rematerialization."""
    task_class = CLASS_OF_ORIGIN.get(origin)
    return TaskClass.REMATERIALIZATION if staged and task_class is not None else task_class


def urgency(origin: str, *, staged: bool = False) -> int:
    """For putting tasks in order; the run of a source is as urgent as what is live."""
    return _URGENCY[class_of(origin, staged=staged) or TaskClass.LIVE]


@dataclass(frozen=True, slots=True)
class QueueSettings:
    """Shares are weights from 1 on. Without a `window_size` there is no limit but the room that workers have."""

    window_size: int | None = None
    live_share: int = 60
    rematerialization_share: int = 30
    backfill_share: int = 10
    live_reserve: int = 1

    @property
    def shares(self) -> Mapping[TaskClass, int]:
        return {
            TaskClass.LIVE: self.live_share,
            TaskClass.REMATERIALIZATION: self.rematerialization_share,
            TaskClass.BACKFILL: self.backfill_share,
        }


@dataclass(slots=True)
class Room:
    """The places of a queue while they are dealt out.

    `out` are those that are taken, by class, whoever released their tasks; `free` those that a task can get now, of
    which the last `kept` are for live ones.
    """

    shares: Mapping[TaskClass, int]
    out: dict[TaskClass, int]
    free: int
    kept: int

    @classmethod
    def of(cls, settings: QueueSettings, out: Mapping[TaskClass, int], workers_room: int) -> "Room":
        """`workers_room` is what workers can take now, of this dispatcher."""
        by_class = {task_class: out.get(task_class, 0) for task_class in TaskClass}
        total = sum(by_class.values())
        free = workers_room if settings.window_size is None else min(workers_room, settings.window_size - total)
        free = max(free, 0)
        # A queue of one place still works off its rebuilds: one is never reserved.
        kept = min(settings.live_reserve, free + total - 1) - by_class[TaskClass.LIVE]
        return cls(settings.shares, by_class, free, min(max(kept, 0), free))

    def next_of(self, waiting: Collection[TaskClass]) -> TaskClass | None:
        """Whose task gets the next place; None where none of these gets one."""
        able = [c for c in waiting if self.free > (0 if c is TaskClass.LIVE else self.kept)]
        return min(able, key=self._turn) if able else None

    def take(self, task_class: TaskClass) -> None:
        """A task of the class has got a place."""
        self.out[task_class] += 1
        self.free -= 1
        if task_class is TaskClass.LIVE:
            self.kept = max(self.kept - 1, 0)

    def _turn(self, task_class: TaskClass) -> tuple[float, int]:
        return self.out[task_class] / self.shares[task_class], _URGENCY[task_class]
