"""What releasing needs of a way to wake workers. Wake-ups are hints: a channel may lose, double and reorder them."""

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol


class WakeupChannel(Protocol):
    """Carries task ids to the workers of a queue."""

    def room(self) -> Mapping[str, int]:
        """By queue, how many wake-ups it can take now; queues without room may be absent."""
        ...

    def served_queues(self) -> Collection[str]:
        """Queues that some worker watches from here, with room or without."""
        ...

    def send(self, queue: str, task_ids: Sequence[str]) -> None:
        """Hands ids over without waiting; also where the room has become less since. What finds no worker any more is
        lost, and sent again by the sweep."""
        ...

    def nudge(self, worker_id: str, task_ids: Sequence[str]) -> None:
        """Asks a worker to look at tasks that it has. Where it cannot be reached from here, its heartbeat tells it."""
        ...
