"""The messages of an answer between a cell and a client: what is sent is what was written, whatever its size."""

import io
import struct

import pyarrow as pa
import pytest
from arrow_flight.flight_pb2 import FlightData

from queryd.engine.answers import Answered, read_answer, write_message
from queryd.engine.arrow_messages import Envelope, MessageWriter, batch_rows, serialized
from queryd.engine.frames import Kind, ProtocolError
from queryd.engine.slots import MAX_ARROW_BYTES
from queryd.envelopes import of_flight_data, of_query_response
from queryd.flight.wire import flight_data
from traceapi.query.v1.query_service_pb2 import QueryResponse


def _message(size: int) -> bytes:
    """A record batch of about this many bytes."""
    return pa.record_batch([pa.array([b"x" * size])], ["x"]).serialize().to_pybytes()


def _nothing_placed(size: int, envelope: Envelope) -> bytes:
    raise AssertionError("nothing was placed in a slot")


def _answers(message: bytes, envelope: Envelope) -> list[Answered]:
    stream = io.BytesIO()
    write_message(stream, 7, memoryview(message))
    stream.seek(0)
    answers = list(iter(lambda: read_answer(stream, envelope, _nothing_placed), None))
    assert all(answer.row_count == 7 for answer in answers)
    assert sum(answer.arrow_bytes for answer in answers) == len(message)
    return answers


@pytest.mark.parametrize("size", [0, 1, 100, 20_000, 2_000_000])
def test_a_message_comes_as_query_service_and_flight_send_it(size: int) -> None:
    message = _message(size)
    (answer,) = _answers(message, of_query_response)
    assert answer.kind is Kind.ARROW
    assert answer.payload == QueryResponse(arrow_ipc=message).SerializeToString()
    (answer,) = _answers(message, of_flight_data)
    data = FlightData.FromString(answer.payload)
    assert answer.payload == flight_data(message) == data.SerializeToString()
    whole = pa.py_buffer(struct.pack("<4sI", b"\xff" * 4, len(data.data_header)) + data.data_header + data.data_body)
    assert pa.ipc.read_message(whole).equals(pa.ipc.read_message(message))


@pytest.mark.parametrize("pieces", [2, 3])
def test_a_message_too_large_for_one_piece_comes_in_several_as_it_is(pieces: int) -> None:
    message = _message((pieces - 1) * MAX_ARROW_BYTES)
    answers = _answers(message, of_query_response)
    assert [answer.kind for answer in answers] == [Kind.ARROW_PART] * (pieces - 1) + [Kind.ARROW_END]
    assert b"".join(answer.payload for answer in answers) == message
    assert max(answer.arrow_bytes for answer in answers) == MAX_ARROW_BYTES


def _frame(letter: bytes, payload: bytes, length: int | None = None) -> bytes:
    return struct.pack(">cI", letter, len(payload) if length is None else length) + payload


_ROWS = bytes(8)


@pytest.mark.parametrize(
    "data",
    [
        _frame(b"a", b"1234567"),
        _frame(b"a", _ROWS + b"1234567"),
        _frame(b"a", _ROWS + bytes(8)),
        _frame(b"a", _ROWS + b"\xff\xff\xff\xff" + (1000).to_bytes(4, "little") + bytes(999)),
        _frame(b"a", _ROWS + b"\xff\xff\xff\xff" + bytes(4) + b"body", length=100),
        _frame(b"a", _ROWS + bytes(MAX_ARROW_BYTES + 1)),
        _frame(b"m", _ROWS + bytes(MAX_ARROW_BYTES + 1)),
        _frame(b"l", _ROWS, length=9),
    ],
)
def test_messages_that_break_the_rules_are_errors(data: bytes) -> None:
    """A cell that has run a text may write anything."""
    with pytest.raises(ProtocolError):
        read_answer(io.BytesIO(data), of_flight_data, _nothing_placed)


def test_batches_of_columns_of_one_width_fill_a_message_each() -> None:
    """And those of which nobody knows how wide they are become not too large."""
    numbers = pa.schema([pa.field(name, pa.int64()) for name in "abcde"])
    rows = batch_rows(numbers)
    column = pa.array([None, *range(1, rows)], pa.int64())
    batch = pa.record_batch([column] * 5, schema=numbers)
    (message,) = MessageWriter(numbers).messages(batch)
    assert serialized(message).size > 0.9 * (2 << 20)
    twice = pa.record_batch([pa.array(range(2 * rows), pa.int64())] * 5, schema=numbers)
    assert len(list(MessageWriter(numbers).messages(twice))) == 2
    texts = pa.table({"a": [1], "b": ["x"]}).schema
    wide = pa.schema([pa.field(str(number), pa.decimal128(38, 0)) for number in range(1000)])
    assert [batch_rows(schema) for schema in (texts, wide, pa.schema([]))] == [32_768, 2048, 131_072]
