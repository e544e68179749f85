"""Large messages of an answer go through memory that a cell shares with queryd: what comes out is what was written, and
a cell that breaks the rules ends its own query alone."""

import fcntl
import io
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import duckdb
import pyarrow as pa
import pytest
from arrow_flight.flight_pb2 import FlightData

from queryd.engine import messages
from queryd.engine.arrow_messages import Envelope
from queryd.engine.frames import Kind, ProtocolError, frame_head
from queryd.engine.messages import CellLimits, Job
from queryd.engine.process import CellEndedError, CellProcess
from queryd.engine.processes import fresh
from queryd.engine.sandbox import Sandbox, bubblewrap, forked, plain
from queryd.engine.slots import MAX_ARROW_BYTES, SLOTS, Slots, SlotWriter
from queryd.envelopes import of_flight_data, of_query_response
from queryd.flight.wire import flight_data
from tests.queryd.forks import ready, running, start_of, usable
from traceapi.query.v1.query_service_pb2 import QueryResponse

_LIMITS = CellLimits(memory_bytes=1 << 30, threads=2, scratch_bytes=64 << 20)
_SHUT_IN = pytest.mark.needs_namespaces
_MOST_ROWS = 10_000_000

Ready = Callable[[], CellProcess]


@pytest.fixture
def cells(tmp_path: Path) -> Path:
    folder = tmp_path / "cells"
    folder.mkdir()
    return folder


@pytest.fixture(
    scope="module",
    params=[pytest.param(forked, marks=_SHUT_IN), pytest.param(bubblewrap, marks=_SHUT_IN), plain],
    ids=["forked", "bubblewrap", "plain"],
)
def ready_cell(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ready]:
    """Makes cells that wait for a query, in each sandbox in turn."""
    make: Callable[[Path | None, CellLimits], Sandbox] = request.param
    folder = tmp_path_factory.mktemp("cells")
    sandbox = usable(make(None, _LIMITS), folder)
    with start_of(sandbox, folder) as start:
        yield lambda: ready(sandbox, folder, start)


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Sizes of the messages that came through slots."""
    sizes: list[int] = []
    take = Slots.take

    def counted(self: Slots, size: int, envelope: Envelope) -> bytes:
        sizes.append(size)
        return take(self, size, envelope)

    monkeypatch.setattr(Slots, "take", counted)
    return sizes


def _answer(cell: CellProcess, sql: str) -> pa.Table:
    cell.send(Kind.DESCRIBE, messages.pack_job(Job(sql, (), _MOST_ROWS)))
    kind, schema = cell.receive()
    assert kind is Kind.SCHEMA, schema
    cell.send(Kind.RUN, b"")
    parts, rows = [schema], 0
    while (answered := cell.receive_answer(of_query_response)).kind is not Kind.FINISHED:
        if answered.kind is Kind.ARROW:
            parts.append(QueryResponse.FromString(answered.payload).arrow_ipc)
        else:
            assert answered.kind in (Kind.ARROW_PART, Kind.ARROW_END), answered
            parts.append(answered.payload)
        assert len(parts[-1]) == answered.arrow_bytes
        rows = answered.row_count
    table = pa.ipc.open_stream(b"".join(parts)).read_all()
    table.validate(full=True)
    assert table.num_rows == rows
    return table


_NUMBERS = (
    "select i, i / 7.0 as d, i::decimal(38, 5) as m, i::hugeint * i as h, i % 3 = 0 as b from range(200_000) t(i)"
)
_TEXTS = (
    "select if(i % 5 = 0, null, repeat('x', (i % 50)::int)) as s, null as n, ''::blob as e from range(100_000) t(i)"
)
_NESTED = (
    "select [i, null, i + 1] as l, {'a': i, 'b': [{'c': i::varchar}]} as s, map([i], [[i]]) as m,"
    " if(i % 2 = 0, null, [i, i]::bigint[2]) as a from range(100_000) t(i)"
)
_ENUMS = (
    "select (['a', 'b', 'c'])[1 + i % 3]::enum('a', 'b', 'c') as e, make_timestamp(i) at time zone 'UTC' as t,"
    " [('a')::enum('a', 'z')] as l from range(300_000) t(i)"
)
_OF_ALL_SIZES = "select repeat('y', (10 ** (i % 8))::int) as s, i from range(9) t(i)"
_EMPTY = "select i, i::varchar as s from range(100_000) t(i) where i < 0"


@pytest.mark.parametrize("sql", [_NUMBERS, _TEXTS, _NESTED, _ENUMS, _OF_ALL_SIZES, _EMPTY])
def test_a_large_answer_is_what_the_engine_alone_gives(ready_cell: Ready, taken: list[int], sql: str) -> None:
    cell = ready_cell()
    answer = _answer(cell, sql)
    cell.close()
    with duckdb.connect() as engine:
        engine.execute("set timezone = 'UTC'")
        expected = engine.sql(sql).to_arrow_table()
    assert answer.schema == expected.schema
    assert answer.equals(expected)
    assert bool(taken) == (sql != _EMPTY)
    assert all(64 << 10 <= size <= MAX_ARROW_BYTES for size in taken)


def test_a_small_answer_touches_no_shared_memory(cells: Path) -> None:
    sandbox = plain(None, _LIMITS)
    cell = ready(sandbox, cells, fresh(sandbox))
    assert _answer(cell, "select 1 as x").num_rows == 1
    assert os.fstat(cell._slots.descriptor).st_blocks == 0
    cell.close()


_SIZE = 100_000


def _batch(fill: int = 7) -> pa.RecordBatch:
    return pa.record_batch([pa.array([bytes([fill]) * _SIZE])], ["x"])


@pytest.fixture
def shared() -> Iterator[Slots]:
    made = Slots()
    yield made
    made.close()


def _writer(shared: Slots) -> SlotWriter:
    return SlotWriter(os.dup(shared.descriptor))


_FREED = frame_head(Kind.FREED, 0)


def test_messages_come_out_in_their_order_as_they_are_sent(shared: Slots) -> None:
    writer = _writer(shared)
    requests = io.BytesIO(_FREED * (3 * SLOTS))
    for number in range(3 * SLOTS):
        message = _batch(number).serialize().to_pybytes()
        writer.put(_batch(number), requests)
        assert shared.take(len(message), of_flight_data) == flight_data(message)
    assert requests.tell() == 2 * SLOTS * len(_FREED)


def test_a_cell_is_ahead_of_its_reader_by_its_slots_and_no_more(shared: Slots) -> None:
    """What waits to be read takes this much memory, however slow the client is."""
    writer = _writer(shared)
    for number in range(SLOTS):
        writer.put(_batch(number), io.BytesIO())
    with pytest.raises(BrokenPipeError):  # it waits for a slot, and there is nobody to free one
        writer.put(_batch(SLOTS), io.BytesIO())
    with pytest.raises(ProtocolError):
        writer.put(_batch(SLOTS), io.BytesIO(frame_head(Kind.RUN, 0)))
    message = _batch(0).serialize()
    data = FlightData.FromString(shared.take(message.size, of_flight_data))
    assert data.data_body == message.to_pybytes()[-len(data.data_body) :]


def test_a_schema_larger_than_all_slots_hinders_nothing(shared: Slots) -> None:
    batch = _batch().replace_schema_metadata({"about": "x" * (SLOTS * MAX_ARROW_BYTES + (1 << 20))})
    message = batch.serialize().to_pybytes()
    _writer(shared).put(batch, io.BytesIO())
    assert shared.take(len(message), of_flight_data) == flight_data(message)


def test_its_size_is_fixed_for_good(shared: Slots) -> None:
    size = os.fstat(shared.descriptor).st_size
    for changed in (0, size - 1, size + 1):
        with pytest.raises(PermissionError):
            os.ftruncate(shared.descriptor, changed)
    with pytest.raises(PermissionError):
        fcntl.fcntl(shared.descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)


@pytest.mark.parametrize("size", [0, 7, MAX_ARROW_BYTES + 1, 1 << 63])
def test_a_size_that_no_message_in_a_slot_has_is_an_error(shared: Slots, size: int) -> None:
    _writer(shared).put(_batch(), io.BytesIO())
    with pytest.raises(ProtocolError, match="in a slot"):
        shared.take(size, of_flight_data)


def test_a_slot_in_which_nothing_is_is_an_error(shared: Slots) -> None:
    """So is one that is told twice: the second time, it is the next one that is looked at."""
    writer = _writer(shared)
    writer.put(_batch(), io.BytesIO())
    size = _batch().serialize().size
    shared.take(size, of_flight_data)
    with pytest.raises(ProtocolError, match="none of Arrow"):
        shared.take(size, of_flight_data)


def test_a_header_larger_than_its_message_is_an_error(shared: Slots) -> None:
    _writer(shared).put(pa.py_buffer(b"\xff\xff\xff\xff" + (1000).to_bytes(4, "little")), io.BytesIO())
    with pytest.raises(ProtocolError, match="none of Arrow"):
        shared.take(1007, of_flight_data)


def test_what_precedes_a_body_is_queryds_though_the_cell_writes_meanwhile(
    shared: Slots, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a cell could make a message of another kind of what is sent, between two looks of queryd at it."""
    _writer(shared).put(_batch(), io.BytesIO())
    pwrite = os.pwrite

    def forged(descriptor: int, data: bytes, offset: int) -> int:
        written = pwrite(descriptor, data, offset)
        pwrite(descriptor, b"\x0a", offset)
        return written

    monkeypatch.setattr(os, "pwrite", forged)
    with pytest.raises(ProtocolError, match="changed"):
        shared.take(_batch().serialize().size, of_flight_data)


def test_a_memory_that_cannot_be_written_as_it_should_is_an_error_of_its_cell(shared: Slots) -> None:
    """To append is to grow it, which is refused."""
    _writer(shared).put(_batch(), io.BytesIO())
    fcntl.fcntl(shared.descriptor, fcntl.F_SETFL, os.O_APPEND)
    with pytest.raises(ProtocolError, match="cannot be read"):
        shared.take(_batch().serialize().size, of_flight_data)


_SAYS = """
import struct
import pyarrow as pa
from queryd.engine.frames import Kind, frame_head
def tell(size, row_count=1):
    writer.answers.write(frame_head(Kind.ARROW_PLACED, 16) + struct.pack(">QQ", row_count, size))
    writer.answers.flush()
message = pa.record_batch([pa.array([b"x" * 100_000])], ["x"]).serialize()
small = pa.schema([]).serialize()
"""
_LIES = {
    "a size beyond the slot": ("tell(4 << 20)", "in a slot"),
    "a size beyond all numbers": ("tell((1 << 64) - 1)", "in a slot"),
    "a slot with nothing in it": ("tell(100_000)", "none of Arrow"),
    "a slot told twice": (
        "writer.slots.put(message, None); tell(message.size); tell(message.size)",
        "none of Arrow",
    ),
    "less than is said of a slot": ("writer.answers.write(frame_head(Kind.ARROW_PLACED, 3) + b'123')", "about a slot"),
    "a slot whose pages are gone": (
        """
import ctypes
writer.slots.put(message, None)
libc = ctypes.CDLL(None, use_errno=True)
assert libc.fallocate(writer.slots._memory.fileno(), 3, ctypes.c_long(0), ctypes.c_long(1 << 22)) == 0
tell(message.size)
""",
        "none of Arrow",
    ),
    "words of free slots that are not heard": (
        """
import array, fcntl, io, termios
told, waiting = frame_head(Kind.FREED, 0), array.array("i", [0])
for count in range(1 << 20):
    while waiting[0] < count * len(told):  # until the slot before is free, or it would be written over
        fcntl.ioctl(writer.requests, termios.FIONREAD, waiting)
    writer.slots.put(small, io.BytesIO(told))
    tell(small.size)
""",
        "does not hear",
    ),
}


@pytest.mark.parametrize(("code", "told"), _LIES.values(), ids=_LIES.keys())
def test_a_cell_that_lies_is_told_of_and_leaves_nothing(cells: Path, code: str, told: str) -> None:
    before = _descriptors()
    cell = _running(cells, code)
    fcntl.fcntl(cell._stdin._descriptor, fcntl.F_SETPIPE_SZ, 4096)
    with pytest.raises(ProtocolError, match=told):
        _hear_all(cell)
    cell.close()
    assert _descriptors() == before


def _running(cells: Path, code: str) -> CellProcess:
    """A cell that runs this instead of a query."""
    return CellProcess(running(plain(None, _LIMITS), _SAYS + code), cells)


def _hear_all(cell: CellProcess) -> NoReturn:
    while True:
        cell.receive_answer(of_flight_data)


def _descriptors() -> list[str]:
    return sorted(path.name for path in Path("/proc/self/fd").iterdir())


def test_what_a_cell_has_said_is_heard_after_its_end(cells: Path) -> None:
    """Nobody is there any more who would hear that its slot is free."""
    cell = _running(cells, "writer.slots.put(message, None); tell(message.size)")
    assert cell._process.wait(60) == 0
    answered = cell.receive_answer(of_query_response)
    message = QueryResponse.FromString(answered.payload).arrow_ipc
    assert pa.ipc.read_message(message).type == "record batch"
    with pytest.raises(CellEndedError):
        _hear_all(cell)
    cell.close()


_WAITS = """
for _ in range(4):
    writer.slots.put(message, None)
writer.answers.write(frame_head(Kind.READY, 0))
writer.answers.flush()
writer.slots.put(message, writer.requests)
"""


def test_a_cell_that_waits_for_a_slot_can_be_stopped(cells: Path) -> None:
    cell = _running(cells, _WAITS)
    cell.wait_ready()
    cell.kill()
    with pytest.raises(CellEndedError):
        _hear_all(cell)
    cell.close()
