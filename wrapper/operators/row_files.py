"""Files of rows for `replay`: CSV or Parquet, plain or gzip, told apart by their content and read as a stream.

Memory does not grow with the file: a CSV is read in blocks, a Parquet file by row groups. Values are read strictly: a
text that is not of the column's type is an error, never null. In a CSV an empty field is null, and the empty text in a
string column. A timestamp is ISO 8601, taken as UTC where it names no zone, or whole seconds since 1970.
"""

import csv
import gzip
import io
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet

from tracesdk import OperatorError
from tracesdk.arrow_types import arrow_types

_GZIP, _PARQUET = b"\x1f\x8b", b"PAR1"
_CSV_BLOCK_BYTES = 1024 * 1024
_PARQUET_BATCH_ROWS = 16_384
_TIMESTAMP = arrow_types({"": "timestamp"})[""]


@contextmanager
def open_rows(path: Path, schema: Mapping[str, str]) -> Iterator["RowFile"]:
    """The rows of the file: the declared columns in its order, or a Parquet file's own where none are declared."""
    if not path.is_file():
        raise OperatorError(f"there is no file {path}")
    packed = _starts_with(path, _GZIP, packed=False)
    if not _starts_with(path, _PARQUET, packed=packed):
        with _input_stream(path, packed=packed) as stream:
            yield _csv_rows(stream, _csv_header(path, packed=packed), schema)
        return
    with _seekable(path, packed=packed) as file, pyarrow.parquet.ParquetFile(file) as parquet:
        yield _parquet_rows(parquet, schema)


class RowFile:
    """Batches of rows, and how many there are in all, 0 where that is not known beforehand."""

    def __init__(self, batches: Iterator[pa.RecordBatch], row_count: int) -> None:
        self.batches = batches
        self.row_count = row_count


def _csv_rows(stream: Any, header: list[str], schema: Mapping[str, str]) -> RowFile:
    if not schema:
        raise OperatorError("a CSV file has no types: declare the columns, as `schema` of the output")
    _require_columns(header, schema)
    types = arrow_types(schema)
    for name, kind in types.items():
        if pa.types.is_list(kind):
            raise OperatorError(f"the column {name!r} is {schema[name]}, and a CSV file holds no lists")
    as_text = {name: pa.string() if kind == _TIMESTAMP else kind for name, kind in types.items()}
    names = [name for name in header if name in schema]
    return RowFile(_told(lambda: _csv_batches(stream, names, as_text), types), 0)


def _csv_batches(stream: Any, names: list[str], types: Mapping[str, pa.DataType]) -> Iterable[pa.RecordBatch]:
    return pyarrow.csv.open_csv(
        stream,
        read_options=pyarrow.csv.ReadOptions(block_size=_CSV_BLOCK_BYTES, use_threads=False),
        parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True),
        convert_options=pyarrow.csv.ConvertOptions(column_types=dict(types), include_columns=names, null_values=[""]),
    )


def _parquet_rows(parquet: pyarrow.parquet.ParquetFile, schema: Mapping[str, str]) -> RowFile:
    names = parquet.schema_arrow.names
    _require_columns(names, schema)
    columns = [name for name in names if not schema or name in schema]

    def batches() -> Iterable[pa.RecordBatch]:
        return parquet.iter_batches(batch_size=_PARQUET_BATCH_ROWS, columns=columns, use_threads=False)

    return RowFile(_told(batches, arrow_types(schema)), parquet.metadata.num_rows)


def _told(read: Callable[[], Iterable[pa.RecordBatch]], types: Mapping[str, pa.DataType]) -> Iterator[pa.RecordBatch]:
    """The batches that `read` opens, typed; faults of the file are told as such."""
    try:
        for batch in read():
            yield _typed(batch, types)
    except pa.ArrowInvalid as error:
        raise OperatorError(f"the file cannot be read: {error}") from error


def _typed(batch: pa.RecordBatch, types: Mapping[str, pa.DataType]) -> pa.RecordBatch:
    """The batch with its text and its numbers read as the declared types; the SDK casts the rest."""
    columns = []
    for field, column in zip(batch.schema, batch.columns, strict=True):
        wanted = types.get(field.name, field.type)
        try:
            columns.append(_read_as(column, wanted))
        except pa.ArrowInvalid as error:
            raise OperatorError(f"column {field.name!r}: {error}") from error
    return pa.RecordBatch.from_arrays(columns, names=batch.schema.names)


def _read_as(column: "pa.Array[Any]", wanted: pa.DataType) -> "pa.Array[Any]":
    if column.type == wanted:
        return column
    if wanted == _TIMESTAMP:
        if pa.types.is_string(column.type):
            column = _times_of_text(column)
        if pa.types.is_integer(column.type):
            column = column.cast(pa.int64()).cast(pa.timestamp("s"))
        return column.cast(pa.timestamp("us", tz="UTC")) if pa.types.is_timestamp(column.type) else column
    return column.cast(wanted) if pa.types.is_string(column.type) else column


def _times_of_text(column: Any) -> Any:
    text = pc.if_else(pc.equal(column, pa.scalar("")), None, column)
    if pc.all(pc.match_substring_regex(text, r"^-?[0-9]+$")).as_py() is not False:
        return text.cast(pa.int64())
    zoned = pc.match_substring_regex(text, r":.*(Z|[+-][0-9]{2}(:?[0-9]{2})?)$")
    aware: Any = pc.if_else(zoned, text, None)
    naive: Any = pc.if_else(zoned, None, text)
    return pc.coalesce(aware.cast(_TIMESTAMP), naive.cast(pa.timestamp("us")).cast(_TIMESTAMP))


def _require_columns(found: list[str], schema: Mapping[str, str]) -> None:
    missing = sorted(set(schema) - set(found))
    if missing:
        raise OperatorError(f"the file has no column {', '.join(map(repr, missing))}; it has {', '.join(found)}")


def _starts_with(path: Path, magic: bytes, *, packed: bool) -> bool:
    with _binary(path, packed=packed) as file:
        return file.read(len(magic)) == magic


def _csv_header(path: Path, *, packed: bool) -> list[str]:
    with _binary(path, packed=packed) as file, io.TextIOWrapper(file, "utf-8-sig", newline="") as text:
        return next(csv.reader(text), [])


def _binary(path: Path, *, packed: bool) -> IO[bytes]:
    return cast(IO[bytes], gzip.open(path)) if packed else path.open("rb")


def _input_stream(path: Path, *, packed: bool) -> Any:
    file = pa.OSFile(str(path), "rb")
    return pa.CompressedInputStream(file, "gzip") if packed else file


@contextmanager
def _seekable(path: Path, *, packed: bool) -> Iterator[IO[bytes]]:
    """The file itself, or a copy without its gzip: Parquet is read from its end."""
    if not packed:
        with path.open("rb") as file:
            yield file
        return
    with tempfile.TemporaryFile() as copy, gzip.open(path) as source:
        shutil.copyfileobj(source, copy, 1024 * 1024)
        copy.seek(0)
        yield copy
