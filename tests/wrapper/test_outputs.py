"""Files as they are written: their columns, their order, their row groups; and the framing of streams, byte by byte."""

import io
import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kernel.errors import TraceError
from tests.wrapper.stack import at, between
from traceapi.types.v1.dag_pb2 import CursorSpec, OutputSpec
from traceapi.types.v1.scope_pb2 import CURSOR_TYPE_INT64
from wrapper.outputs import parquet
from wrapper.outputs.columns import UnknownColumnType, stored_schema
from wrapper.outputs.framing import Framer, FramingError
from wrapper.outputs.parquet import ParquetFile
from wrapper.outputs.reader import OutputReader


def _stream(table: pa.Table, rows: int = 1000) -> bytes:
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=rows)
    return sink.getvalue()


def _numbers(count: int, seed: int = 1) -> pa.Table:
    values = random.Random(seed).sample(range(count), count)
    return pa.table({"number": pa.array(values, pa.int64()), "word": [f"word {value % 7}" for value in values]})


@pytest.mark.parametrize("size", [1, 7, 1000, 1 << 20])
def test_messages_are_found_however_the_bytes_are_cut(size: int) -> None:
    content = _stream(_numbers(3000))
    framer = Framer()
    frames = [frame for at in range(0, len(content), size) for frame in framer.feed(content[at : at + size])]
    framer.finish()
    assert [frame.kind.name for frame in frames] == ["SCHEMA"] + ["RECORD_BATCH"] * 3
    assert b"".join(frame.content for frame in frames) == content[: -len(b"\xff\xff\xff\xff\x00\x00\x00\x00")]


def test_no_damage_of_a_stream_gets_further_than_its_reader() -> None:
    """Any byte of a stream may be anything: what comes of it is a refusal or rows, never another error."""
    content = _stream(_numbers(50), rows=20)
    spec = OutputSpec(cursor=CursorSpec(column="number", type=CURSOR_TYPE_INT64))
    refused = 0
    for position in range(len(content)):
        for value in (0, 0xFF, content[position] ^ 0x10):
            damaged = content[:position] + bytes([value]) + content[position + 1 :]
            reader = OutputReader("b", spec, between(0, 49))
            try:
                for batch in reader.feed(damaged):
                    batch.validate(full=True)
                reader.finish()
            except TraceError:
                refused += 1
    assert refused > len(content)


def test_bytes_after_the_end_are_refused() -> None:
    with pytest.raises(FramingError, match="after the end"):
        list(Framer().feed(_stream(_numbers(10)) + b"more"))


@pytest.mark.parametrize(
    ("arriving", "word"),
    [
        (pa.large_string(), "string"),
        (pa.string_view(), "string"),
        (pa.large_binary(), "binary"),
        (pa.timestamp("ms"), "timestamp"),
        (pa.timestamp("us", "Europe/Berlin"), "timestamp"),
        (pa.date64(), "date"),
        (pa.decimal128(38, 2), "decimal(38,2)"),
        (pa.large_list(pa.large_string()), "list<string>"),
    ],
)
def test_types_that_differ_in_representation_only_have_one_word(arriving: pa.DataType, word: str) -> None:
    _, words = stored_schema(pa.schema([("x", arriving)]), {})
    assert words == {"x": word}


@pytest.mark.parametrize("arriving", [pa.decimal256(50, 0), pa.struct([("a", pa.int8())]), pa.float16(), pa.null()])
def test_types_without_a_word_are_refused(arriving: pa.DataType) -> None:
    with pytest.raises(UnknownColumnType):
        stored_schema(pa.schema([("x", arriving)]), {})


def test_all_that_differs_from_the_declaration_is_told_at_once() -> None:
    spec = OutputSpec(schema={"number": "int64", "other": "string"})
    reader = OutputReader("b", spec, at(1))
    with pytest.raises(TraceError) as refused:
        list(reader.feed(_stream(pa.table({"number": pa.array([1], pa.int32()), "word": ["x"]}))))
    assert refused.value.reason_name == "SCHEMA_DRIFT"
    for text in ("column other is missing", "column word is not declared", "column number is int32, declared as int64"):
        assert text in refused.value.message


@pytest.mark.parametrize("in_memory", [1 << 30, 1000])
def test_rows_are_ordered_in_memory_or_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_memory: int) -> None:
    monkeypatch.setattr(parquet, "_SORT_IN_MEMORY_BYTES", in_memory)
    table = _numbers(5000)
    file = ParquetFile(tmp_path / "x.parquet", table.schema, ["word", "number"])
    for batch in table.to_batches(max_chunksize=100):
        file.write(batch)
    path = file.finish()
    assert pq.read_table(path).equals(table.sort_by([("word", "ascending"), ("number", "ascending")]))
    assert file.row_count == 5000
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_small_batches_are_gathered_into_one_row_group(tmp_path: Path) -> None:
    table = _numbers(5000)
    file = ParquetFile(tmp_path / "x.parquet", table.schema, [])
    for batch in table.to_batches(max_chunksize=1):
        file.write(batch)
    metadata = pq.read_metadata(file.finish())
    assert (metadata.num_row_groups, metadata.row_group(0).column(0).compression) == (1, "ZSTD")
