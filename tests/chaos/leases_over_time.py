"""Who held a task at any moment of the run, from what the harness' triggers wrote down."""

from bisect import bisect_left
from collections import defaultdict

from tests.chaos.evidence import Evidence, StreamChange, TaskChange


class LeasesOverTime:
    """`seq` is the one numbering of all that was written down; the answers are of what stood before it."""

    def __init__(self, evidence: Evidence) -> None:
        self._tasks: dict[str, list[TaskChange]] = defaultdict(list)
        self._streams: dict[tuple[str, str], list[StreamChange]] = defaultdict(list)
        self._stream_of = {task.task_id: (task.job_version_id, task.stream_key) for task in evidence.tasks}
        for change in sorted(evidence.task_changes, key=lambda change: change.seq):
            self._tasks[change.task_id].append(change)
        for moved in sorted(evidence.stream_changes, key=lambda moved: moved.seq):
            self._streams[moved.job_version_id, moved.stream_key].append(moved)

    def histories(self) -> dict[str, list[TaskChange]]:
        """Each task's changes, in order."""
        return self._tasks

    def of_streams(self) -> dict[tuple[str, str], list[StreamChange]]:
        """Each ordered stream's changes, in order."""
        return self._streams

    def of_task(self, task_id: str, seq: int) -> TaskChange | None:
        """The task as it stood."""
        changes = self._tasks.get(task_id, [])
        index = bisect_left(changes, seq, key=lambda change: change.seq)
        return changes[index - 1] if index else None

    def until(self, held: TaskChange, seq: int) -> float | None:
        """When the lease of a running task was to end: its own, or its stream's where that is still of its epoch."""
        if held.stream_epoch is None:
            return held.lease_until
        job_version_id, stream_key = self._stream_of.get(held.task_id, ("", None))
        changes = self._streams.get((job_version_id, stream_key or ""), [])
        index = bisect_left(changes, seq, key=lambda change: change.seq)
        stood = changes[index - 1] if index else None
        return stood.lease_until if stood is not None and stood.epoch == held.stream_epoch else None
