"""What goes to the wrapper without anyone waiting for it: log lines, progress, finished units. One thread sends it.

Whatever has gathered while the last call was under way goes with the next one, so a busy process sends few large
messages. Lines and progress of a unit are sent before it is finished: afterwards the wrapper does not know its tasks.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from traceapi.operator.v1.operator_service_pb2 import FinishedUnit, OperatorLogLine, TaskProgress

Item = TypeVar("Item", OperatorLogLine, TaskProgress, FinishedUnit)

_MOST_ITEMS = 1000  # the contract's limit of each list
_MOST_BYTES = 4 * 1024 * 1024
_MOST_LINES = 10_000  # kept while the wrapper is slow; older ones are dropped
_LOG_SECONDS = 0.1  # so long lines and progress may wait for company


@dataclass(frozen=True, slots=True)
class OutboxCalls:
    """How each kind is sent."""

    write_log: Callable[[Sequence[OperatorLogLine]], None]
    report_progress: Callable[[Sequence[TaskProgress]], None]
    finish_work: Callable[[Sequence[FinishedUnit]], None]
    failed: Callable[[BaseException], None]  # a call failed: nothing can be sent any more


class Outbox:
    """Collects and sends. `finish` and the others may be called by any thread."""

    def __init__(self, calls: OutboxCalls) -> None:
        self._calls = calls
        self._condition = threading.Condition()
        self._lines: list[OperatorLogLine] = []
        self._dropped = 0
        self._progress: dict[str, TaskProgress] = {}
        self._finished: list[FinishedUnit] = []
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="outbox", daemon=True)
        self._thread.start()

    def log(self, line: OperatorLogLine) -> None:
        with self._condition:
            if len(self._lines) == _MOST_LINES:
                del self._lines[: _MOST_LINES // 10]
                self._dropped += _MOST_LINES // 10
            self._lines.append(line)
            self._condition.notify()

    def progress(self, report: TaskProgress) -> None:
        with self._condition:
            self._progress[report.task_id] = report
            self._condition.notify()

    def finish(self, unit: FinishedUnit) -> None:
        with self._condition:
            self._finished.append(unit)
            self._condition.notify()

    def close(self) -> None:
        """Sends what is left, and returns once it is sent."""
        with self._condition:
            self._closed = True
            self._condition.notify()
        self._thread.join()

    def _run(self) -> None:
        try:
            while self._round():
                pass
        except Exception as error:  # noqa: BLE001 -- a thread's end must be heard
            self._calls.failed(error)

    def _round(self) -> bool:
        with self._condition:
            self._condition.wait_for(lambda: self._urgent() or self._lines or self._progress)
            self._condition.wait_for(self._urgent, timeout=_LOG_SECONDS)
            closed = self._closed
            lines, self._lines = self._lines, []
            reports, self._progress = list(self._progress.values()), {}
            finished, self._finished = self._finished, []
            dropped, self._dropped = self._dropped, 0
        if dropped:
            lines.insert(0, OperatorLogLine(level="warning", text=f"{dropped:,} log lines were dropped"))
        for line_part in _parts(lines):
            self._calls.write_log(line_part)
        for report_part in _parts(reports):
            self._calls.report_progress(report_part)
        for unit_part in _parts(finished):
            self._calls.finish_work(unit_part)
        return not closed

    def _urgent(self) -> bool:
        return bool(self._finished) or self._closed


def _parts(items: Sequence[Item]) -> Iterator[Sequence[Item]]:
    """The items in lists that a message can carry."""
    part: list[Item] = []
    size = 0
    for item in items:
        length = item.ByteSize()
        if part and (len(part) == _MOST_ITEMS or size + length > _MOST_BYTES):
            yield part
            part, size = [], 0
        part.append(item)
        size += length
    if part:
        yield part
