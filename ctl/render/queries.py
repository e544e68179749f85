"""Queries: what one would read, and those that run."""

from collections.abc import Iterable
from datetime import UTC, datetime

from rich.console import Group, RenderableType
from rich.text import Text

from ctl.render import values
from ctl.render.listing import Listing
from ctl.render.printable import printable
from traceapi.query.v1 import query_service_pb2 as api

_SQL_LETTERS = 80


def explanation(explained: api.ExplainQueryResponse) -> RenderableType:
    """What would be read, a line for each dataset, and the engine's plan below."""
    table = Listing()
    for name in ("dataset", "version", "up to"):
        table.add_column(Text(name))
    for name in ("files", "rows", "size"):
        table.add_column(Text(name), justify="right")
    for dataset in explained.datasets:
        pin = dataset.pin
        if dataset.virtual:
            table.add_row(Text(pin.dataset_id, "dataset"), Text("virtual", "hint"), *(Text() for _ in range(4)))
            continue
        table.add_row(
            Text(pin.dataset_id, "dataset"),
            Text(pin.dataset_version_id),
            Text(f"publication {values.count(pin.publication_number)}"),
            Text(values.count(dataset.file_count)),
            Text(values.count(dataset.row_count)),
            Text(values.byte_size(dataset.file_bytes)),
        )
    files = sum(dataset.file_count for dataset in explained.datasets)
    size = sum(dataset.file_bytes for dataset in explained.datasets)
    counted = f"{values.count(files)} file{'s' if files != 1 else ''}"
    total = Text(f"at most {counted}, {values.byte_size(size)}, would be read", "hint")
    return Group(table, total, Text(), Text(printable(explained.plan, keep="\n")))


def listing(queries: Iterable[api.RunningQuery], now: datetime) -> Listing:
    """Oldest first."""
    table = Listing()
    for name in ("query", "by", "for", "rows", "SQL"):
        table.add_column(Text(name), justify="right" if name in ("for", "rows") else "left")
    for query in queries:
        sql = " ".join(query.sql.split())
        table.add_row(
            Text(query.query_id),
            Text(printable(query.actor), "name"),
            Text(values.duration((now - query.started_time.ToDatetime(UTC)).total_seconds())),
            Text(values.count(query.row_count)),
            Text(printable(sql if len(sql) <= _SQL_LETTERS else f"{sql[:_SQL_LETTERS]}…")),
        )
    return table
