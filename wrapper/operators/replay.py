"""`replay`: a file of rows as an ordered stream of events, one per distinct value of the cursor column.

    config: {path, cursor, rate?, limit?, until?, batch_rows?}

`path`        a CSV or Parquet file, plain or gzip; relative: it travels with the deploy; absolute: read in place,
              where the worker's owner allows it
`cursor`      the column that orders the rows: ascending, the rows of one value adjacent
`rate`        events per second; without it as fast as they are accepted
`limit`       events in all, over all attempts
`until`       the file is complete up to this cursor: at its end the watermark moves there
`batch_rows`  rows after which a file is cut, at the next border of cursors; 5,000 where not stated

Rows are written in files of many cursors, and a file's events go with it in one emit: were they spread over several, a
crash in between would leave rows in a file of which only some are announced, and a second file with the same rows. The
watermark moves with each emit to its last cursor. State: JSON {"last": cursor, "rows": n, "events": n}; a resumed run
passes over rows up to `last`. The cut depends on the rows only, so it is the same whenever it is made again.
"""

import json
import time
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.compute as pc

from tracesdk import Cursor, CursorType, Job, OperatorError, Scope, Source, SourceEvent, SourceRun
from tracesdk.scopes import time_of
from wrapper.operators.row_files import open_rows

_BATCH_ROWS = 5000
_STEADY_SECONDS = 0.25  # at a rate, events come in portions of about so long


@dataclass(frozen=True, slots=True)
class Position:
    """How far a run is, over all attempts. `last` is the cursor as an integer (microseconds) or text; None at first."""

    last: int | str | None = None
    rows: int = 0
    events: int = 0

    @classmethod
    def from_state(cls, state: bytes) -> "Position":
        return cls(**json.loads(state)) if state else cls()

    def to_state(self) -> bytes:
        return json.dumps({"last": self.last, "rows": self.rows, "events": self.events}).encode()


@dataclass(frozen=True, slots=True)
class Portion:
    """Rows for one file, and their distinct cursors, ascending. `complete`: the file of rows ends here."""

    table: pa.Table
    cursors: list[Any]  # int (microseconds for times) or str
    complete: bool


@dataclass(frozen=True, slots=True)
class Cut:
    """Where portions end: after so many rows or events, whichever comes first; and after how many events all ends."""

    rows: int
    events: int
    limit: int | None = None


def portions(
    batches: Iterable[pa.RecordBatch], cursor_column: str, after: int | str | None, cut: Cut
) -> Iterator[Portion]:
    """Cuts rows at borders of cursors, leaving out those up to `after`. Raises OperatorError with the row at fault.

    The last portion is the complete one, and may be empty; there is none where the limit ends it before.
    """
    pending: list[pa.RecordBatch] = []
    cursors: list[Any] = []
    rows_before = pending_rows = events = 0
    seen: Any = None
    schema: pa.Schema | None = None
    for batch in batches:
        schema = batch.schema
        start = begin = 0  # of what belongs to the portion; of the rows of one cursor
        for value, end in _runs(batch.column(cursor_column)):
            if seen is None or value != seen:
                _check_order(value, seen, rows_before + begin + 1, cursor_column)
                seen = value
                if after is None or value > after:
                    limited = cut.limit is not None and events >= cut.limit
                    full = pending_rows + begin - start >= cut.rows or len(cursors) >= cut.events
                    if (full or limited) and cursors:
                        pending.append(batch.slice(start, begin - start))
                        yield Portion(pa.Table.from_batches(pending), cursors, complete=False)
                        pending, pending_rows, cursors, start = [], 0, [], begin
                    if limited:
                        return
                    cursors.append(value)
                    events += 1
            begin = end
            if not cursors:  # passed over before
                start = end
        pending.append(batch.slice(start))
        pending_rows += batch.num_rows - start
        rows_before += batch.num_rows
    yield Portion(pa.Table.from_batches(pending, schema or pa.schema([])), cursors, complete=True)


class Replay(Source):
    """The source around `portions`: files, emits, the state, the pace."""

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self._output = job.only_output()
        config = job.config
        self._cursor = str(config.get("cursor", ""))
        if self._output.cursor_column not in ("", self._cursor):
            declared = self._output.cursor_column
            raise OperatorError(f"`cursor` is {self._cursor!r}, and the output's cursor column is {declared!r}")
        self._path = _file_of(job)
        self._rate: float | None = config.get("rate")
        self._limit: int | None = config.get("limit")
        until = config.get("until")
        self._until = None if until is None else self._output.cursor_type.parse(until)
        self._batch_rows = int(config.get("batch_rows", _BATCH_ROWS))

    def run(self, source: SourceRun) -> None:
        position = Position.from_state(source.state)
        pace = Pace(source, self._rate)
        most_events = self.job.max_events_per_emit
        if self._rate is not None:
            most_events = min(most_events, max(1, round(self._rate * _STEADY_SECONDS)))
        limit = None if self._limit is None else max(self._limit - position.events, 0)
        cut = Cut(self._batch_rows, most_events, limit)
        with open_rows(self._path, self._output.schema) as file:
            for portion in portions(file.batches, self._cursor, position.last, cut):
                pace.wait_for_turn(len(portion.cursors))
                position = self._emit(source, portion, position)
                self._report(source, position, file.row_count)

    def _emit(self, source: SourceRun, portion: Portion, before: Position) -> Position:
        """Writes and publishes a portion; the position after it."""
        dataset, cursors = self._output.dataset, portion.cursors
        position, events = before, []
        if cursors:
            scope = Scope.between(self._value(cursors[0]), self._value(cursors[-1]))
            file = source.write(dataset, portion.table, scope)
            events = [SourceEvent(dataset, Scope.at(self._value(cursor)), file) for cursor in cursors]
            position = Position(cursors[-1], before.rows + portion.table.num_rows, before.events + len(cursors))
        watermark = None if position.last is None else self._value(position.last)
        if portion.complete and self._until is not None:
            if watermark is None or _after(self._until, watermark):
                watermark = self._until
            elif self._until != watermark:
                source.log.warning("`until` is below the last cursor of the file", until=self._until, last=watermark)
        if events or (portion.complete and watermark is not None):
            source.emit_batch(events, position.to_state(), {} if watermark is None else {dataset: watermark})
        return position

    def _report(self, source: SourceRun, position: Position, row_count: int) -> None:
        if position.last is None:
            return
        message = f"{position.rows:,} rows, up to {self._value(position.last)}"
        if row_count and self._limit is None:
            source.progress(position.rows, row_count, "rows", message)
        else:
            source.progress(position.events, self._limit or 0, "events", message)

    def _value(self, cursor: int | str) -> Cursor:
        is_time = self._output.cursor_type is CursorType.TIMESTAMP
        return time_of(cursor) if is_time and isinstance(cursor, int) else cursor


class Waiting(Protocol):
    """What can wait, and be told to stop."""

    def wait(self, seconds: float) -> bool: ...

    def check_canceled(self) -> None: ...


class Pace:
    """Keeps a source to its rate: a portion's turn is when, at that rate, all before it have had their time."""

    def __init__(self, source: Waiting, rate: float | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._source = source
        self._rate = rate
        self._clock = clock
        self._started = clock()
        self._events = 0

    def wait_for_turn(self, events: int) -> None:
        """Waits for the turn of the next events. Raises TaskCanceled when the run is told to stop meanwhile."""
        if self._rate is not None:
            early = self._started + self._events / self._rate - self._clock()
            if early > 0:
                self._source.wait(early)
        self._source.check_canceled()
        self._events += events


def _runs(column: "pa.Array[Any]") -> Iterator[tuple[Any, int]]:
    """The column's values without repetition of neighbours, each with the row at which it ends; None for null."""
    if pa.types.is_timestamp(column.type) or pa.types.is_integer(column.type):
        column = column.cast(pa.int64())
    encoded: Any = pc.call_function("run_end_encode", [column])
    return zip(encoded.values.to_pylist(), encoded.run_ends.to_pylist(), strict=True)


def _check_order(value: Any, seen: Any, row: int, column: str) -> None:
    if value is None:
        raise OperatorError(f"row {row:,}: the cursor column {column!r} is null")
    if seen is not None and value < seen:
        raise OperatorError(f"row {row:,}: {column} {value} after {seen}; rows must ascend by {column!r}")
    if isinstance(value, str) and not unicodedata.is_normalized("NFC", value):
        raise OperatorError(f"row {row:,}: {column} {value!r} is not in normalisation form NFC")


def _after(one: Cursor, other: Cursor) -> bool:
    """Whether `one` is the greater of two cursors of a type."""
    if isinstance(one, datetime) and isinstance(other, datetime):
        return one > other
    if isinstance(one, int) and isinstance(other, int):
        return one > other
    return str(one) > str(other)


def _file_of(job: Job) -> Path:
    """The file as the wrapper hands it over, and no other: which files may be read in place is the wrapper's to say."""
    path = str(job.config.get("path", ""))
    given = job.local_paths.get(path)
    if given is None:
        raise OperatorError(f"the wrapper handed over no file {path!r}")
    return Path(given, Path(path).name) if Path(given).is_dir() else Path(given)
