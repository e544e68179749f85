"""`noop`: no work at all, so that everything around it can be measured. `make bench-dispatch` runs it.

    config: {events?}

`events`  how many events each task emits; 1 where not stated, and then about the task's own scope. More are about the
          cursors that follow each other from the task's first: those of neighbours must not meet

The time of an event is the moment at which its task began here: the clock of the machine that runs it. So an attempt
that is repeated emits another time, and its task is marked as not deterministic.
"""

from datetime import UTC, datetime

from tracesdk import Job, Operator, OperatorError, Scope, Task


class Noop(Operator):
    """Emits, and says when it began."""

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self._output = job.only_output().dataset
        self._events = int(job.config.get("events", 1))

    def process(self, task: Task) -> None:
        began = datetime.now(UTC)
        if self._events == 1:
            task.emit(self._output, event_time=began)
            return
        first = task.scope.first
        if not isinstance(first, int):
            raise OperatorError(f"several events need integers to count from; this one is about {task.scope}")
        for cursor in range(first, first + self._events):
            task.emit(self._output, Scope.at(cursor), event_time=began)
