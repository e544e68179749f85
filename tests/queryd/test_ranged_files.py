"""Files that a cell asks for, as its engine sees them: read-only, few bytes of them, and no others."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from queryd.engine import messages
from queryd.engine.answers import AnswerWriter
from queryd.engine.cell import _Cell, prepared
from queryd.engine.frames import Kind, read_frame
from queryd.engine.messages import CellLimits, Failure, FailureKind, Job, RangedFile, Relation

_KEY, _OTHER = "data/version/one.parquet", "data/version/other.parquet"
_LIMITS = CellLimits(512 << 20, 2, 1 << 30)
_ROWS = 100_000


class Asker:
    """Reads from a file, and remembers what it was asked for."""

    def __init__(self, path: Path) -> None:
        self.content = path.read_bytes()
        self.reads: list[tuple[int, int, int]] = []
        self.memory = True

    def read(self, index: int, position: int, length: int) -> bytes:
        if not self.memory:
            raise MemoryError
        self.reads.append((index, position, length))
        return self.content[position : position + length]


@pytest.fixture
def asker(tmp_path: Path) -> Asker:
    path = tmp_path / "file"
    pq.write_table(pa.table({"x": range(_ROWS), "y": range(_ROWS)}), path, row_group_size=10_000)
    return Asker(path)


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    with prepared(_LIMITS, tmp_path) as opened:
        yield opened


def _asked(connection: duckdb.DuckDBPyConnection, asker: Asker, sql: str) -> list[tuple[Kind, bytes]]:
    """What a cell answers of which these are the files."""
    written = io.BytesIO()
    cell = _Cell(connection, AnswerWriter(written, io.BytesIO(), cast("Any", None)), cast("Any", asker))
    cell.answer(Kind.CHECK, sql.encode())
    files = [RangedFile(_OTHER, 1), RangedFile(_KEY, len(asker.content))]
    cell.answer(Kind.FILES, messages.pack_files(files))
    relation = Relation(("t",), paths=(f"{messages.RANGED}://{_KEY}",))
    if cell.answer(Kind.DESCRIBE, messages.pack_job(Job(sql, (relation,), 100))):
        cell.answer(Kind.RUN, b"")
    frames = io.BytesIO(written.getvalue())
    return list(iter(lambda: read_frame(frames, 1 << 20), None))


def test_the_end_of_a_file_is_read_once_and_of_the_rest_what_is_needed(
    connection: duckdb.DuckDBPyConnection, asker: Asker
) -> None:
    answers = dict(_asked(connection, asker, "select sum(x) as s from t where x < 15_000"))
    rows = pa.ipc.open_stream(answers[Kind.SCHEMA] + answers[Kind.ARROW][8:]).read_all()
    assert rows.to_pylist() == [{"s": sum(range(15_000))}]
    size = len(asker.content)
    assert {index for index, _, _ in asker.reads} == {1}
    assert [position + length for _, position, length in asker.reads].count(size) == 1
    assert all(position + length <= size for _, position, length in asker.reads)


def test_the_engine_is_locked_to_the_files_and_writes_none(connection: duckdb.DuckDBPyConnection, asker: Asker) -> None:
    _asked(connection, asker, "select 1 from t limit 1")
    for sql in (
        f"from read_parquet('trace://{_OTHER}')",
        "from read_parquet('trace://data/version/*.parquet')",
        f"copy (select 1) to 'trace://{_KEY}' (format parquet)",
        f"copy (select 1) to 'trace://{_KEY}' (format parquet, use_tmp_file false)",
        f"copy (select 1) to 'trace://{_OTHER}' (format csv)",
    ):
        with pytest.raises(duckdb.Error):
            connection.execute(sql).fetchall()


def test_that_there_is_no_memory_for_a_range_is_told_as_such(
    connection: duckdb.DuckDBPyConnection, asker: Asker
) -> None:
    asker.memory = False
    kind, payload = _asked(connection, asker, "select sum(x) from t")[-1]
    assert kind is Kind.FAILED
    assert messages.unpack_failure(payload) == Failure(
        FailureKind.MEMORY, "the query needs more memory than it may have (query_memory_bytes)"
    )
