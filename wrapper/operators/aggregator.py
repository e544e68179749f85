"""`aggregator`: per-unit events, in order, into ranges of fixed size.

    config: {size: 100}      int64 cursors: a range is [k*100, k*100 + 99]
    config: {size: 1h}       timestamps: a range is an hour, counted from 1970-01-01T00:00:00Z

A range closes on its last cursor, or on the first event beyond it, and is then emitted by the task of that event, with
explicit boundaries and the units that it has. Ranges without units are not emitted. The last range of a stream stays
open until an event closes it: nothing else tells that no more units will come. Which task emits which range follows
from the events alone, so any cut of the same events into runs gives the same emits.

State: the range that is open, as a serialized RangeManifest. Without members it is a range that closed on its last
cursor, kept since nothing at or below its end may come again. The output's watermark is the cursor before the open
range.
"""

import re
from dataclasses import dataclass, field

from tracesdk import Cursor, Job, OperatorError, OrderedOperator, RangeManifest, Run, Scope, ScopeKind, Task
from tracesdk.scopes import INT64_MAX, INT64_MIN, microseconds, time_of

_DURATION = re.compile(r"([0-9]{1,12}(\.[0-9]{1,9})?(d|h|ms|us|m|s))+")
_DURATION_PART = re.compile(r"([0-9]+)(?:\.([0-9]+))?(d|h|ms|us|m|s)")
_NANOSECONDS = {"d": 86_400 * 10**9, "h": 3600 * 10**9, "m": 60 * 10**9, "s": 10**9, "ms": 10**6, "us": 1000}
_MOST_EVENTS_OF_A_TASK = 2  # the range before it, and the one that it fills


class LateCursor(OperatorError):
    """A cursor at or below one that was processed before: its range may have been emitted."""


@dataclass(slots=True)
class UnitRange:
    """A range in the making: its boundaries, and its units as ascending [first, last] members."""

    first: int
    last: int
    count: int = 0
    members: list[list[int]] = field(default_factory=list)


class Ranges:
    """Folds ascending cursors, as integers, into ranges. Pure; all of its state is `current`."""

    def __init__(self, size: int, *, consecutive: bool, current: UnitRange | None = None) -> None:
        """`consecutive` joins neighbours into one member: integers have neighbours, times do not."""
        self._size = size
        self._consecutive = consecutive
        self.current = current
        """The range that is open; without members the last one, which its last cursor closed; None at first."""

    def add(self, cursor: int) -> list[UnitRange]:
        """Takes the next cursor; the ranges that it closes. Raises LateCursor, and then nothing has changed."""
        current, closed = self.current, []
        if current is not None:
            processed = current.members[-1][1] if current.members else current.last
            if cursor <= processed:
                raise LateCursor(f"cursor {cursor} came after {processed}: events must ascend, each cursor once")
        if current is None or cursor > current.last:
            if current is not None and current.members:
                closed.append(current)
            first = cursor // self._size * self._size
            current = UnitRange(max(first, INT64_MIN), min(first + self._size - 1, INT64_MAX))
        if self._consecutive and current.members and current.members[-1][1] == cursor - 1:
            current.members[-1][1] = cursor
        else:
            current.members.append([cursor, cursor])
        current.count += 1
        if cursor == current.last:
            closed.append(current)
            current = UnitRange(current.first, current.last)
        self.current = current
        return closed

    def complete_up_to(self) -> int | None:
        """The cursor up to which every range was emitted; None where nothing can be said."""
        if self.current is None:
            return None
        if not self.current.members:
            return self.current.last
        return self.current.first - 1 if self.current.first > INT64_MIN else None


class Aggregator(OrderedOperator):
    """The operator around `Ranges`: cursors in, range events out, state and watermark with each run."""

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self._output = job.only_output().dataset
        self._size, self._times = parse_size(job.config.get("size"))

    def process(self, run: Run) -> None:
        current = self._unpacked(RangeManifest.from_bytes(run.state)) if run.state else None
        ranges = Ranges(self._size, consecutive=not self._times, current=current)
        complete = ranges.complete_up_to()
        previous: Task | None = None
        for task in run.tasks:
            try:
                closed = ranges.add(self._number(task.scope))
            except LateCursor:
                if previous is not None:  # what came before is sound, and is not to be done again
                    self._conclude(run, ranges, complete)
                    run.checkpoint(previous)
                raise
            for one in closed:
                manifest = self._packed(one)
                task.emit(self._output, Scope.between(manifest.first, manifest.last), manifest=manifest)
            if run.pending_events > self.job.max_events_per_emit - _MOST_EVENTS_OF_A_TASK:
                complete = self._conclude(run, ranges, complete)
                run.checkpoint(task)
            previous = task
        self._conclude(run, ranges, complete)

    def _conclude(self, run: Run, ranges: Ranges, complete_before: int | None) -> int | None:
        """Sets the state after the tasks so far, and the watermark where it has moved."""
        if ranges.current is not None:
            run.set_state(self._packed(ranges.current).to_bytes())
        complete = ranges.complete_up_to()
        if complete is not None and complete != complete_before:
            run.set_watermark(self._output, self._cursor(complete))
        return complete

    def _number(self, scope: Scope) -> int:
        if scope.kind is not ScopeKind.CURSOR or scope.first is None:
            raise OperatorError(f"the aggregator takes events of single cursors; this one is about {scope}")
        return self._integer(scope.first)

    def _integer(self, cursor: Cursor) -> int:
        if isinstance(cursor, str):
            raise OperatorError("the aggregator cannot cut text into ranges; its trigger needs an int64 or a timestamp")
        if isinstance(cursor, int) == self._times:
            kind = "timestamps" if self._times else "int64 cursors"
            raise OperatorError(f"the aggregator's size is one of {kind}, and the cursor is {cursor!r}")
        return cursor if isinstance(cursor, int) else microseconds(cursor)

    def _cursor(self, number: int) -> Cursor:
        return time_of(number) if self._times else number

    def _packed(self, one: UnitRange) -> RangeManifest:
        members = tuple((self._cursor(first), self._cursor(last)) for first, last in one.members)
        return RangeManifest(self._cursor(one.first), self._cursor(one.last), one.count, members)

    def _unpacked(self, manifest: RangeManifest) -> UnitRange:
        members = [[self._integer(first), self._integer(last)] for first, last in manifest.members]
        return UnitRange(self._integer(manifest.first), self._integer(manifest.last), manifest.unit_count, members)


def parse_size(size: object) -> tuple[int, bool]:
    """The size in cursor values, or in microseconds and True for a duration such as `1h` or `1h30m`."""
    if isinstance(size, int) and not isinstance(size, bool) and size >= 1:
        return size, False
    if isinstance(size, str) and len(size) <= 100 and _DURATION.fullmatch(size):
        nanoseconds = 0
        for whole, fraction, unit in _DURATION_PART.findall(size):
            nanoseconds += int(whole) * _NANOSECONDS[unit]
            nanoseconds += int((fraction or "0").ljust(9, "0")) * _NANOSECONDS[unit] // 10**9
        if nanoseconds >= 1000 and nanoseconds % 1000 == 0:
            return nanoseconds // 1000, True
    raise OperatorError(f"the aggregator's size must be a count from 1, or a duration such as 1h, and is {size!r}")
