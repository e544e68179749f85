"""A run of an ordered job: consecutive tasks in scope order, and the state that goes through them."""

from collections.abc import Sequence

from traceapi.operator.v1.operator_service_pb2 import OperatorEvent, UnitEmit, WorkUnit
from traceapi.types.v1.event_pb2 import Watermark
from tracesdk.errors import InvalidOutput
from tracesdk.job import Job
from tracesdk.scopes import Cursor
from tracesdk.task import Task
from tracesdk.unit import Unit, checked_state, watermark_message


class Run:
    """The tasks, the state before them, and what they publish: all of it, or nothing, up to each checkpoint.

    Tasks emit by their own `emit`. `tasks` leaves out those whose part an earlier attempt has published already.
    """

    def __init__(self, message: WorkUnit, unit: Unit) -> None:
        self._unit = unit
        self._positions = {task.task_id: at for at, task in enumerate(message.tasks, start=1)}
        self._new_state: bytes | None = None
        self._watermarks: dict[str, Watermark] = {}
        self.tasks: Sequence[Task] = [Task(task, unit) for task in message.tasks if not task.already_emitted]
        self.state = message.state.data

    @property
    def job(self) -> Job:
        return self._unit.job

    @property
    def canceled(self) -> bool:
        return self._unit.cancellation.canceled

    @property
    def pending_events(self) -> int:
        """Events since the last checkpoint. At most `job.max_events_per_emit` may be published as one."""
        return len(self._unit.events)

    def set_state(self, state: bytes) -> None:
        """The state after the tasks so far; kept with what they emit, or not at all."""
        self._new_state = checked_state(state)

    def set_watermark(self, dataset: str, cursor: Cursor) -> None:
        """Says that an output is complete up to the cursor, and including it."""
        self._watermarks[dataset] = watermark_message(self.job.output(dataset), cursor)

    def checkpoint(self, task: Task) -> None:
        """Publishes now what the tasks up to `task`, and including it, emitted, with the state and the watermarks set.

        They will not be processed again, whatever becomes of the rest of the run.
        """
        self._publish(task, self._unit.take_events())

    def checkpoint_before(self, task: Task, previous: Task) -> None:
        """The same up to `previous`; what `task` emitted is held back further."""
        events = self._unit.take_events()
        later = [event for event in events if event.task_id == task.task_id]
        self._publish(previous, [event for event in events if event.task_id != task.task_id])
        self._unit.events = later

    def drop_events(self, task: Task) -> None:
        """Forgets what `task` emitted: it failed."""
        self._unit.events = [event for event in self._unit.events if event.task_id != task.task_id]

    def take_emit(self) -> UnitEmit:
        """What is to be published since the last checkpoint."""
        return self._emit(self._unit.take_events())

    def _publish(self, task: Task, events: list[OperatorEvent]) -> None:
        emit = self._emit(events)
        emit.covered_tasks = self._positions[task.task_id]
        self._unit.publish(emit)

    def _emit(self, events: list[OperatorEvent]) -> UnitEmit:
        if len(events) > self.job.max_events_per_emit:
            raise InvalidOutput(
                f"{len(events):,} events without a checkpoint; at most {self.job.max_events_per_emit:,} can be "
                "published as one: call run.checkpoint(task) after a task"
            )
        watermarks, self._watermarks = self._watermarks, {}
        state, self._new_state = self._new_state, None
        return UnitEmit(unit_id=self._unit.unit_id, events=events, state=state, watermarks=list(watermarks.values()))
