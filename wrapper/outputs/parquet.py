"""Writes a Parquet file from batches as they come, in bounded memory, ordered where the dataset wants it."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

_ROW_GROUP_ROWS = 128 * 1024
_ROW_GROUP_BYTES = 32 << 20
_SORT_IN_MEMORY_BYTES = 128 << 20
_SORT_MEMORY = "512MB"
_SORT_ROWS = 32 * 1024


class ParquetFile:
    """A file that grows. `sort` names the columns by which its rows are ordered, ascending, nulls last."""

    def __init__(self, path: Path, schema: pa.Schema, sort: Sequence[str]) -> None:
        self._path = path
        self._schema = schema
        self._sort = tuple(sort)
        self._pending: list[pa.RecordBatch] = []
        self._pending_rows = 0
        self._pending_bytes = 0
        self._writer: pq.ParquetWriter | None = None
        self.row_count = 0

    def write(self, batch: pa.RecordBatch) -> None:
        """Adds rows. Small batches are gathered, so that whoever writes row by row does not make a group of each."""
        self._pending.append(batch)
        self._pending_rows += batch.num_rows
        self._pending_bytes += batch.nbytes
        self.row_count += batch.num_rows
        limit = _SORT_IN_MEMORY_BYTES if self._sort and self._writer is None else _ROW_GROUP_BYTES
        rows = _ROW_GROUP_ROWS if not self._sort or self._writer is not None else 1 << 62
        if self._pending_bytes >= limit or self._pending_rows >= rows:
            self._flush()

    def finish(self) -> Path:
        """Ends the file; answers where it lies."""
        if self._sort and self._writer is None:
            table = self._gathered()
            if not _is_sorted(table, self._sort):
                table = table.sort_by([(name, "ascending") for name in self._sort])
            self._open().write_table(table, row_group_size=_ROW_GROUP_ROWS)
            self.close()
            return self._path
        self._flush()
        self.close()
        return self._sorted_on_disk() if self._sort else self._path

    def close(self) -> None:
        """Lets go of the file, finished or not."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        self._pending.clear()

    def _flush(self) -> None:
        writer = self._writer or self._open()
        if self._pending_rows:
            writer.write_table(self._gathered(), row_group_size=_ROW_GROUP_ROWS)

    def _gathered(self) -> pa.Table:
        table = pa.Table.from_batches(self._pending, self._schema)
        self._pending = []
        self._pending_rows = self._pending_bytes = 0
        return table

    def _open(self) -> pq.ParquetWriter:
        self._writer = pq.ParquetWriter(self._path, self._schema, compression="zstd")
        return self._writer

    def _sorted_on_disk(self) -> Path:
        """Too much for memory: DuckDB sorts the file, spilling beside it."""
        ordered = self._path.with_suffix(".sorted.parquet")
        spill = self._path.with_suffix(".spill")
        with duckdb.connect(
            config={"memory_limit": _SORT_MEMORY, "temp_directory": str(spill), "threads": 1}
        ) as connection:
            connection.execute("SET TimeZone = 'UTC'")
            columns = ", ".join(_quoted(name) for name in self._sort)
            rows = connection.sql(f"SELECT * FROM read_parquet({_literal(self._path)}) ORDER BY {columns}")  # noqa: S608 -- quoted
            with pq.ParquetWriter(ordered, self._schema, compression="zstd") as writer:
                for table in _row_groups(rows.to_arrow_reader(_SORT_ROWS), self._schema):
                    writer.write_table(table, row_group_size=_ROW_GROUP_ROWS)
        self._path.unlink()
        return ordered


def _row_groups(batches: pa.RecordBatchReader, schema: pa.Schema) -> Iterator[pa.Table]:
    gathered: list[pa.RecordBatch] = []
    rows = size = 0
    for batch in batches:
        gathered.append(batch.cast(schema))
        rows += batch.num_rows
        size += batch.nbytes
        if rows >= _ROW_GROUP_ROWS or size >= _ROW_GROUP_BYTES:
            yield pa.Table.from_batches(gathered, schema)
            gathered, rows, size = [], 0, 0
    if gathered:
        yield pa.Table.from_batches(gathered, schema)


def _is_sorted(table: pa.Table, sort: Sequence[str]) -> bool:
    """A cheap look at the usual case: one column without nulls that ascends already."""
    if len(sort) != 1 or table.num_rows < 2:
        return table.num_rows < 2
    column = table.column(sort[0])
    if column.null_count or pa.types.is_floating(column.type):
        return False
    values = column.combine_chunks()
    return bool(pc.all(pc.greater_equal(values.slice(1), values.slice(0, len(values) - 1))).as_py())


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _literal(path: Path) -> str:
    return "'" + str(path).replace("'", "''") + "'"
