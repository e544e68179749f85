"""The rows of a query on standard output: a table with a footer, CSV, or a JSON object a line."""

import json
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal, TextIO

import pyarrow as pa
from rich.console import Console, Group
from rich.text import Text

from ctl import rows
from ctl.outputs import outliving_readers
from ctl.query_stream import QueryStream
from ctl.render import values
from ctl.render.listing import Listing
from ctl.render.printable import printable
from traceapi.query.v1 import query_service_pb2 as api

MOST_ROWS = 10_000
"""A table is laid out as a whole, so it is for as many rows as a person may look through."""

_MOST_CELLS = 100_000
_CELL_LETTERS = 160


def print_table(
    stream: QueryStream,
    console: Console,
    limit: int,
    progress: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> None:
    """At most `limit` rows, in a pager where they do not fit on the screen, and what they were read at.

    Long values are shortened, with their size. `progress` is shown until the table is there.
    """
    with progress():
        schema = stream.schema()
        most = max(1, min(limit, MOST_ROWS, _MOST_CELLS // max(1, len(schema))))
        taken = _Taken(stream, most)
        cells = _Cells()
        table = _table(schema, ([cells.cell(value) for value in row] for row in taken))
    body = Group(table, footer(stream, table.row_count, complete=not taken.cut, shortened=cells.shortened))
    height = table.row_count * (1 if table.fits(console.width) else len(schema) + 1)
    if console.is_terminal and height > console.height - 6:
        os.environ.setdefault("LESS", "-RFX")  # colours, and no pager for what fits after all
        with outliving_readers(), console.pager(styles=True):  # who leaves the pager has read enough
            console.print(body)
    else:
        console.print(body)


class _Taken:
    """The first rows of a stream, batch by batch. `cut`: there were more."""

    def __init__(self, stream: QueryStream, limit: int | None) -> None:
        self._stream = stream
        self._limit = limit
        self.cut = False

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        found = (row for batch in self._stream.batches() for row in rows.python_rows(batch))
        for number, row in enumerate(found):
            if number == self._limit:
                self.cut = True
                return
            yield row


def arrow_table(answer: pa.Table) -> Listing:
    """A whole answer, small enough for a screen."""
    found = (row for batch in answer.to_batches() for row in rows.python_rows(batch))
    cells = _Cells()
    return _table(answer.schema, [[cells.cell(value) for value in row] for row in found])


def _table(schema: pa.Schema, lines: Iterable[list[Text]]) -> Listing:
    table = Listing()
    for field in schema:
        justify: Literal["left", "right"] = "right" if rows.is_number(field.type) else "left"
        table.add_column(Text(printable(field.name)), justify=justify, overflow="fold")
    for line in lines:
        table.add_row(*line)
    return table


class _Cells:
    """Values as cells, none longer than a person reads. `shortened`: some were."""

    def __init__(self) -> None:
        self.shortened = False

    def cell(self, value: object) -> Text:
        if value is None:
            return Text("NULL", "hint")
        text = rows.text_of(value)
        if len(text) <= _CELL_LETTERS:
            return Text(printable(text))
        self.shortened = True
        return Text(printable(text[:_CELL_LETTERS])).append(f"… ({_size(value, text)})", "hint")


def _size(value: object, text: str) -> str:
    if isinstance(value, bytes):
        return f"{values.count(len(value))} bytes"
    if isinstance(value, (list, tuple)):
        return f"{values.count(len(value))} items"
    return f"{values.count(len(text))} characters"


def footer(stream: QueryStream, shown: int, *, complete: bool, shortened: bool = False) -> Text:
    """How many rows, how long, and the pin: which state they are of."""
    counted = f"{values.count(shown)} row{'s' if shown != 1 else ''}"
    if complete:
        parts = [counted]
    else:
        more = f", a table --limit up to {values.count(MOST_ROWS)}" if shown < MOST_ROWS else ""
        parts = [f"the first {counted}; --output csv or json give all{more}"]
    if shortened:
        parts.append("… marks shortened values; --output csv or json give them whole")
    if stream.finished is not None:
        parts.append(values.duration(values.seconds_of(stream.finished.elapsed_duration)))
    parts.append(_read_at(stream.started))
    return Text(" · ".join(part for part in parts if part), "hint")


def _read_at(started: api.QueryStarted) -> str:
    """`deploy 1: eth.blocks up to publication 12`."""
    pinned = [
        f"{pin.dataset_id}@{pin.publication_number}" if pin.dataset_version_id else pin.dataset_id
        for pin in started.pin.datasets
    ]
    return f"read at deploy {started.pin.deploy_number}: {', '.join(pinned)}" if pinned else ""


def print_csv(stream: QueryStream, out: TextIO, limit: int | None) -> bool:
    """All rows, or at most `limit`. True when there were more."""
    out.write(rows.csv_line(list(stream.schema().names)))
    taken = _Taken(stream, limit)
    for row in taken:
        out.write(rows.csv_line([None if value is None else rows.text_of(value) for value in row]))
    return taken.cut


def print_json(stream: QueryStream, out: TextIO, limit: int | None) -> bool:
    """An object a line: all rows, or at most `limit`. True when there were more."""
    names = rows.unique_names(stream.schema())
    taken = _Taken(stream, limit)
    for row in taken:
        document = {name: rows.json_value(value) for name, value in zip(names, row, strict=True)}
        out.write(json.dumps(document, ensure_ascii=False, allow_nan=False) + "\n")
    return taken.cut
