"""The rows of a query on standard output: a table with a footer, CSV, or a JSON object a line."""

import json
import os
import sys
from itertools import islice
from typing import TextIO

import pyarrow as pa
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from ctl import rows
from ctl.query_stream import QueryStream
from ctl.render import tables, values
from traceapi.query.v1 import query_service_pb2 as api


def print_table(stream: QueryStream, console: Console, limit: int) -> None:
    """At most `limit` rows (0: all), in a pager where they do not fit on the screen, and what they were read at."""
    table = _empty_table(stream.schema())
    wanted = limit or sys.maxsize
    complete = True
    for batch in stream.batches():
        room = wanted - table.row_count
        complete = batch.num_rows <= room
        for row in islice(rows.python_rows(batch), room):
            table.add_row(*(_cell(value) for value in row))
        if not complete:
            break
    body = Group(table, footer(stream, table.row_count, complete=complete))
    if console.is_terminal and table.row_count > console.height - 6:
        os.environ.setdefault("LESS", "-RFX")  # colours, and no pager for what fits after all
        with console.pager(styles=True):
            console.print(body)
    else:
        console.print(body)


def _empty_table(schema: pa.Schema) -> Table:
    table = tables.table()
    for field in schema:
        table.add_column(Text(field.name), justify="right" if rows.is_number(field.type) else "left", overflow="fold")
    return table


def arrow_table(answer: pa.Table) -> Table:
    """A whole answer, small enough for a screen."""
    table = _empty_table(answer.schema)
    for batch in answer.to_batches():
        for row in rows.python_rows(batch):
            table.add_row(*(_cell(value) for value in row))
    return table


def _cell(value: object) -> Text:
    return Text("NULL", "hint") if value is None else Text(rows.text_of(value))


def footer(stream: QueryStream, shown: int, *, complete: bool) -> Text:
    """How many rows, how long, and the pin: which state they are of."""
    if complete:
        parts = [f"{values.count(shown)} row{'s' if shown != 1 else ''}"]
    else:
        parts = [f"the first {values.count(shown)} rows; --limit 0, --output csv or json give all"]
    if stream.finished is not None:
        parts.append(values.duration(values.seconds_of(stream.finished.elapsed_duration)))
    parts.append(pin_text(stream.started))
    return Text(" · ".join(part for part in parts if part), "hint")


def pin_text(started: api.QueryStarted) -> str:
    """`deploy 1: eth.blocks up to publication 12`."""
    pinned = [
        f"{pin.dataset_id}@{pin.publication_number}" if pin.dataset_version_id else pin.dataset_id
        for pin in started.pin.datasets
    ]
    return f"read at deploy {started.pin.deploy_number}: {', '.join(pinned)}" if pinned else ""


def print_csv(stream: QueryStream, out: TextIO) -> None:
    out.write(rows.csv_line(list(stream.schema().names)))
    for batch in stream.batches():
        for row in rows.python_rows(batch):
            out.write(rows.csv_line([None if value is None else rows.text_of(value) for value in row]))


def print_json(stream: QueryStream, out: TextIO) -> None:
    names = rows.unique_names(stream.schema())
    for batch in stream.batches():
        for row in rows.python_rows(batch):
            document = {name: rows.json_value(value) for name, value in zip(names, row, strict=True)}
            out.write(json.dumps(document, ensure_ascii=False, allow_nan=False) + "\n")
