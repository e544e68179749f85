"""Wake-ups that get lost, doubled, shuffled, late, and mixed with ids that nobody knows: they are hints, so it may only
cost time."""

import random
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dispatcher.wakeups.stream import StreamChannel
from tests.chaos.recorder import History
from tests.wakeups.faulty_sqs import FaultySqs

if TYPE_CHECKING:
    from types_boto3_sqs.client import SQSClient


@dataclass(frozen=True, slots=True)
class Losses:
    """Shares of wake-ups, from 0 to 1."""

    lost: float
    doubled: float
    garbage: float

    @classmethod
    def parse(cls, text: str) -> "Losses":
        """`lost,doubled,garbage`."""
        return cls(*map(float, text.split(",")))

    def __str__(self) -> str:
        return f"{self.lost},{self.doubled},{self.garbage}"


class LossyStream(StreamChannel):
    """The built-in stream, with losses."""

    def __init__(self, losses: Losses, rng: random.Random, history: History) -> None:
        super().__init__()
        self._losses = losses
        self._rng = rng
        self._history = history

    def send(self, queue: str, task_ids: Sequence[str]) -> None:
        kept: list[str] = []
        lost = doubled = garbage = 0
        for task_id in task_ids:
            chance = self._rng.random()
            if chance < self._losses.lost:
                lost += 1
                continue
            copies = 2 if chance < self._losses.lost + self._losses.doubled else 1
            doubled += copies - 1
            kept += [task_id] * copies
            if self._rng.random() < self._losses.garbage:
                garbage += 1
                kept.append(str(uuid.UUID(int=self._rng.getrandbits(128), version=4)))
        self._rng.shuffle(kept)
        self._history.note(wakeups=len(task_ids), lost=lost, doubled=doubled, garbage=garbage)
        super().send(queue, kept)


class LossySqs(FaultySqs):
    """The client of SQS, with losses; some messages come late."""

    def __init__(self, client: "SQSClient", losses: Losses, seed: int, history: History) -> None:
        super().__init__(
            client, seed, lost=losses.lost, doubled=losses.doubled, late=losses.doubled, garbage=losses.garbage
        )
        self._history = history

    def send_message_batch(self, *, QueueUrl: str, Entries: list[dict[str, str]]) -> Any:
        lost, doubled, garbage = self.lost_count, self.doubled_count, self.garbage_count
        answer = super().send_message_batch(QueueUrl=QueueUrl, Entries=Entries)
        self._history.note(
            wakeups=len(Entries),
            lost=self.lost_count - lost,
            doubled=self.doubled_count - doubled,
            garbage=self.garbage_count - garbage,
        )
        return answer
