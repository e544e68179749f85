"""Scopes of datasets without files on their way into a cell: so many rows at a time, for the whole may be large."""

from collections.abc import Sequence

import pyarrow as pa

from queryd.engine.frames import Kind
from queryd.engine.process import CellProcess

_ROWS = 1 << 18


def send_tables(cell: CellProcess, tables: Sequence[pa.Table]) -> None:
    """In the order in which the job names them. Raises CellEndedError."""
    for table in tables:
        for start in range(0, max(table.num_rows, 1), _ROWS):
            kind = Kind.TABLE_ROWS if start else Kind.TABLE
            cell.send(kind, _arrow_stream(table.slice(start, _ROWS)))


def _arrow_stream(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()
