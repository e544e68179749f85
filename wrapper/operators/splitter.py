"""`splitter`: a range event into one event per unit: the inverse of `aggregator`. No config, no order, no state.

The units are those of the event's manifest: every value of a run for int64 cursors, one per member for others.
"""

from collections.abc import Iterator

from tracesdk import Cursor, Job, Operator, OperatorError, RangeManifest, Scope, Task


class Splitter(Operator):
    """Emits the units of each range event, ascending."""

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self._output = job.only_output().dataset

    def process(self, task: Task) -> None:
        manifest = task.event.manifest
        if manifest is None:
            raise OperatorError(f"the event about {task.event.scope} has no manifest, so its units are not known")
        for cursor in units(manifest):
            task.emit(self._output, Scope.at(cursor))


def units(manifest: RangeManifest) -> Iterator[Cursor]:
    """The cursors of the units of a range, ascending."""
    for first, last in manifest.members:
        if isinstance(first, int) and isinstance(last, int):
            yield from range(first, last + 1)
        elif first == last:
            yield first
        else:
            raise OperatorError(f"the member {first} to {last} is no single unit, and only integers can be counted")
