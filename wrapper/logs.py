"""What operators say: the newest lines, in memory, for whoever asks this worker. Bounded whatever they say."""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass

MAX_TEXT_BYTES = 8192
LEVELS = frozenset({"debug", "info", "warning", "error", "stdout", "stderr"})
_BATCH = 500


@dataclass(frozen=True, slots=True)
class Line:
    """One line, when this worker got it. `task_id` is empty where the process spoke outside of a task."""

    time: float
    task_id: str
    job: str
    level: str
    text: str


@dataclass(frozen=True, slots=True)
class Lines:
    """Lines, oldest first, and how many before them this reader missed."""

    lines: tuple[Line, ...]
    lost: int


class OperatorLogs:
    """The kept lines. Readers follow by number, so a slow one misses lines and knows how many; it never holds others
    up."""

    def __init__(self, capacity: int) -> None:
        self._lines: deque[Line] = deque(maxlen=max(capacity, 1))
        self._next = 0  # the number of the line that comes next
        self._added = asyncio.Event()

    def add(self, job: str, level: str, text: str, task_id: str = "") -> None:
        """Keeps a line; what is too long is cut."""
        if len(text) > MAX_TEXT_BYTES // 4:
            text = text.encode(errors="replace")[:MAX_TEXT_BYTES].decode(errors="ignore")
        self._lines.append(Line(time.time(), task_id, job, level if level in LEVELS else "info", text))
        self._next += 1
        self._added.set()

    async def read(self, *, task_id: str, tail: int, follow: bool) -> AsyncIterator[Lines]:
        """The newest `tail` kept lines of a task (all where empty), then, with `follow`, new ones for ever."""
        kept = [line for line in self._lines if task_id in ("", line.task_id)][-tail:]
        position = self._next
        for batch in _batches(kept):
            yield Lines(batch, 0)
        while follow:
            if position == self._next:
                self._added = self._added if not self._added.is_set() else asyncio.Event()
                await self._added.wait()
            oldest = self._next - len(self._lines)
            lost = max(0, oldest - position)
            position = max(position, oldest)
            end = min(self._next, position + _BATCH)
            new = [self._lines[index - oldest] for index in range(position, end)]
            position = end
            chosen = tuple(line for line in new if task_id in ("", line.task_id))
            if chosen or lost:
                yield Lines(chosen, lost)


def _batches(lines: list[Line]) -> Iterable[tuple[Line, ...]]:
    return (tuple(lines[start : start + _BATCH]) for start in range(0, len(lines), _BATCH))
