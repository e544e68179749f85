"""Queues in the database: what people set, what is out of them, and what dispatchers say of their workers."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from dispatcher.db.rows import Connection, rows
from dispatcher.db.statements import Statements
from dispatcher.wakeups.metering import CLASS_OF_ORIGIN, QueueSettings, TaskClass

_sql = Statements.load("dispatcher.wakeups", "queues.sql")

REPORT_SECONDS = 5.0
"""How often a dispatcher says what its workers can take."""
_FRESH = timedelta(seconds=3 * REPORT_SECONDS)
_FORGOTTEN = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class ClassUse:
    """Tasks of a class in a queue. `places` are what counts against the window."""

    waiting: int = 0
    released: int = 0
    running: int = 0
    places: int = 0


@dataclass(frozen=True, slots=True)
class QueueUse:
    """A queue as it stands. `credits` and `served` are as dispatchers have said within the last seconds."""

    queue: str
    settings: QueueSettings
    classes: Mapping[TaskClass, ClassUse]
    credits: int
    served: bool
    actor: str
    changed_at: datetime | None

    @property
    def out(self) -> dict[TaskClass, int]:
        """Places that are taken."""
        return {task_class: use.places for task_class, use in self.classes.items()}


@dataclass(frozen=True, slots=True)
class QueueChange:
    """What a person sets: None stays as it is, a window of 0 is none."""

    window_size: int | None = None
    live_share: int | None = None
    rematerialization_share: int | None = None
    backfill_share: int | None = None
    live_reserve: int | None = None


@dataclass(frozen=True, slots=True)
class _QueueRow:
    queue: str
    window_size: int | None
    live_share: int | None
    rematerialization_share: int | None
    backfill_share: int | None
    live_reserve: int | None
    actor: str
    changed_at: datetime | None
    credits: int
    served: bool

    @property
    def settings(self) -> QueueSettings:
        if (
            self.live_share is None
            or self.rematerialization_share is None
            or self.backfill_share is None
            or self.live_reserve is None
        ):
            return QueueSettings()
        return QueueSettings(
            self.window_size, self.live_share, self.rematerialization_share, self.backfill_share, self.live_reserve
        )


@dataclass(frozen=True, slots=True)
class _ClassRow:
    queue: str
    origin: str
    waiting: int
    released: int
    running: int
    places: int


async def own_queue(connection: Connection, queue: str) -> QueueSettings:
    """What people set of the queue, locked until the commit; the defaults where they set nothing."""
    found = await rows(connection, _sql.own_queue, QueueSettings, queue=queue)
    return found[0] if found else QueueSettings()


async def queue_uses(
    connection: Connection, queue: str | None = None, *, most_waiting: int | None = None
) -> list[QueueUse]:
    """By name. Waiting tasks of each job are counted up to `most_waiting`: all of a long backlog take their time."""
    found = await rows(connection, _sql.queues, _QueueRow, queue=queue, fresh=_FRESH)
    counted = await rows(
        connection, _sql.class_uses, _ClassRow, queue=queue, most=most_waiting, origins=list(CLASS_OF_ORIGIN)
    )
    uses = {
        (row.queue, CLASS_OF_ORIGIN[row.origin]): ClassUse(row.waiting, row.released, row.running, row.places)
        for row in counted
    }
    return [
        QueueUse(
            row.queue,
            row.settings,
            {task_class: uses.get((row.queue, task_class), ClassUse()) for task_class in TaskClass},
            row.credits,
            row.served,
            row.actor,
            row.changed_at,
        )
        for row in found
    ]


async def set_queue(connection: Connection, queue: str, change: QueueChange, actor: str) -> None:
    """Holds from the next round of releases on."""
    defaults = QueueSettings()
    await connection.execute(
        _sql.set_queue,
        {
            "queue": queue,
            "window_size": change.window_size,
            "live_share": change.live_share,
            "default_live_share": defaults.live_share,
            "rematerialization_share": change.rematerialization_share,
            "default_rematerialization_share": defaults.rematerialization_share,
            "backfill_share": change.backfill_share,
            "default_backfill_share": defaults.backfill_share,
            "live_reserve": change.live_reserve,
            "default_live_reserve": defaults.live_reserve,
            "actor": actor,
        },
    )


async def report_queues(connection: Connection, dispatcher_id: str, watched: Mapping[str, int]) -> None:
    """`watched` are the queues that workers watch from here, each with what they can take now."""
    await connection.execute(
        _sql.report_queues,
        {
            "dispatcher_id": dispatcher_id,
            "queues": list(watched),
            "credits": list(watched.values()),
            "forgotten": _FORGOTTEN,
        },
    )
