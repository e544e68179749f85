"""A unit of work: a task, or a run of consecutive tasks, with the lease under which this worker does it.

It is the one mutable record of an attempt's life on this worker. Everybody who acts for the unit asks here whether it
may still act: once the lease is lost, nothing of it is sent any more.
"""

import asyncio
import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum, auto

from google.protobuf.message import Message

from traceapi.operator.v1.operator_service_pb2 import FinishedUnit
from traceapi.types.v1.artifact_pb2 import Artifact
from traceapi.types.v1.errors_pb2 import ItemError
from traceapi.types.v1.task_pb2 import TASK_ORIGIN_LIVE, OperatorState, Progress, StreamLease, TaskLease
from traceapi.worker.v1.worker_service_pb2 import ClaimedTask
from wrapper.jobs import Job

_MAX_EXACT_KEYS = 20_000
_SOURCE_OUTPUTS = 1000


class Stop(Enum):
    """Why a unit is asked to stop; the strongest reason counts."""

    HAND_BACK = auto()  # the worker leaves, and another one takes the task up; or it is paused, and goes on later
    CANCEL = auto()  # the dispatcher says so: the attempt ends as canceled
    LOST = auto()  # the lease is gone: nothing is reported


_unit_ids = itertools.count(1)


class EmittedEvents:
    """Counts the distinct events of one task. Beyond a limit it counts only those that the dispatcher called new: a
    lower bound in constant memory, for sources that emit millions."""

    __slots__ = ("_beyond", "_keys")

    def __init__(self) -> None:
        self._keys: set[tuple[str, bytes]] = set()
        self._beyond = 0

    @property
    def count(self) -> int:
        return len(self._keys) + self._beyond

    def add_distinct(self) -> None:
        """Counts an event of which nothing like it can have been counted."""
        self._beyond += 1

    def add(self, dataset_id: str, scope: Message, *, duplicate: bool | None) -> None:
        """`duplicate` is the dispatcher's word, None where it has not spoken yet."""
        exact = len(self._keys) < _MAX_EXACT_KEYS
        if not exact and duplicate is not None:  # nor is it one of the keys where it is new: they have been accepted
            self._beyond += not duplicate
            return
        key = (dataset_id, scope.SerializeToString(deterministic=True))
        if exact:
            self._keys.add(key)
        elif key not in self._keys:
            self._beyond += 1


@dataclass(slots=True, eq=False)
class Unit:
    """What this worker holds one lease for."""

    job: Job
    tasks: Sequence[ClaimedTask]
    """One task, or those of a run in scope order."""
    lease_token: bytes
    lease_until: float
    """On this process' monotonic clock, measured from the dispatcher's answer: never earlier than the dispatcher's
    own end."""
    stream: StreamLease | None = None
    state: OperatorState | None = None
    unit_id: int = field(default_factory=lambda: next(_unit_ids))
    claimed_time: float = field(default_factory=time.time)
    task_indexes: dict[str, int] = field(init=False)
    leases: list[TaskLease] = field(init=False)
    emitted: list[EmittedEvents] = field(init=False)
    emitting: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Where there is state, one emit at a time: each names the version that the one before answered."""
    handed: bool = False
    began: float | None = None
    """When every unit that its process was handed before it had ended: since then it is its turn, and its time runs."""
    overdue: bool = False
    """Its time is used up."""
    finished: FinishedUnit | None = None
    """What its operator said at its end."""
    stop: Stop | None = None
    stop_reason: str = ""
    outputs: "dict[str, asyncio.Future[Artifact]]" = field(default_factory=dict)
    """Files that were written, by output_id, once they are stored; nothing is visible until an emit names them."""
    output_count: int = 0
    deliveries: int = 0
    """How many processes it was given to."""
    covered_tasks: int = 0
    """How many tasks of a run, from its first, were covered by accepted emits."""
    accepted_emits: int = 0
    refused: ItemError | None = None
    progress: Progress | None = None
    told_by: int = 0
    """Of a run, the index of the task that told its progress last."""
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    """Nothing is left to do for it here."""
    publishing: bool = False
    """The operator has done its part."""
    _waiter: "asyncio.Future[None] | None" = None

    def __post_init__(self) -> None:
        self.task_indexes = {task.task_id: index for index, task in enumerate(self.tasks)}
        self.leases = [
            TaskLease(task_id=task.task_id, attempt=task.attempt, lease_token=self.lease_token) for task in self.tasks
        ]
        self.emitted = [EmittedEvents() for _ in self.tasks]

    @property
    def first(self) -> ClaimedTask:
        return self.tasks[0]

    @property
    def is_run(self) -> bool:
        return self.stream is not None

    @property
    def is_source(self) -> bool:
        return self.job.details.source

    @property
    def is_live(self) -> bool:
        """Whether an event that has just arrived caused it."""
        return self.tasks[0].origin == TASK_ORIGIN_LIVE

    @property
    def keeps_state(self) -> bool:
        """So that its emits follow each other."""
        return self.is_run or self.is_source

    def alive(self) -> bool:
        """Whether results may still be sent. A lease that was not extended in time counts as lost."""
        if self.stop is not Stop.LOST and time.monotonic() >= self.lease_until:
            self.ask_to_stop(Stop.LOST, "its lease was not extended in time")
        return self.stop is not Stop.LOST

    def ask_to_stop(self, stop: Stop, reason: str) -> None:
        """The operator is asked to stop; what was accepted so far is not taken back."""
        if self.stop is None or stop.value > self.stop.value:
            self.stop, self.stop_reason = stop, reason
        self.announce()

    def announce(self) -> None:
        """Something about it has changed: who runs it looks again."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def news(self, seconds: float | None = None) -> None:
        """Waits until something is announced, or so long. For the one who runs it: a future and no task, since a worker
        waits for thousands."""
        loop = asyncio.get_running_loop()
        self._waiter = loop.create_future()
        timer = None if seconds is None else loop.call_later(seconds, self.announce)
        try:
            await self._waiter
        finally:
            self._waiter = None
            if timer is not None:
                timer.cancel()

    def keep_output(self, output_id: str, artifact: "asyncio.Future[Artifact]") -> None:
        """Remembers a written file. A source may run for ever: of its files only the newest can still be named."""
        self.outputs[output_id] = artifact
        if self.is_source and len(self.outputs) > _SOURCE_OUTPUTS:
            del self.outputs[next(iter(self.outputs))]

    def tell_progress(self, task_id: str, progress: Progress) -> None:
        """How far one of its tasks is."""
        self.told_by, self.progress = self.task_indexes[task_id], progress

    def begin_again(self) -> None:
        """For another process, within the same attempt. Only while nothing of it was emitted."""
        self.handed, self.began, self.finished = False, None, None
        self.outputs.clear()
