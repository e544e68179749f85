"""The messages of an answer: from the cell, through its pipe or a slot of shared memory, into what is sent.

A message of Arrow is its header and its body, and travels in a message of gRPC. Put together from parts, or written by
protobuf, a body would be copied once more for each step. So what precedes it there is made first, in the room before
the body (queryd/engine/slots.py) or with room for the body, into which the pipe is read.
"""

import io
import struct
from collections.abc import Callable
from dataclasses import dataclass

import pyarrow as pa

from queryd.engine.arrow_messages import PREFIX_BYTES, Envelope, header_bytes, serialized
from queryd.engine.frames import MAX_ANSWER_BYTES, Kind, ProtocolError, frame_head, read_exactly, read_head
from queryd.engine.slots import MAX_ARROW_BYTES, SlotWriter

_SMALL_BYTES = 64 << 10
_ROWS = struct.Struct(">Q")
_PLACED = struct.Struct(">QQ")
"""Of what is in a slot: rows, size."""
_ARROW = (Kind.ARROW, Kind.ARROW_PART, Kind.ARROW_END)

Take = Callable[[int, Envelope], bytes]
"""The next message from its slot, of this size, in its envelope. Raises ProtocolError."""


@dataclass(frozen=True, slots=True)
class Answered:
    """A frame of an answer. Of Arrow: `row_count` rows up to here, `arrow_bytes` bytes; `payload` is what is sent of a
    whole message, else a part of it as it is."""

    kind: Kind
    payload: bytes
    row_count: int = 0
    arrow_bytes: int = 0


@dataclass(frozen=True, slots=True)
class AnswerWriter:
    """The cell's side: frames go into `answers`, and word of free slots comes in `requests`."""

    answers: io.BufferedIOBase
    requests: io.BufferedIOBase
    slots: SlotWriter

    def write(self, row_count: int, message: pa.RecordBatch | pa.Buffer) -> None:
        """One message, with the rows that it and those before it hold. As SlotWriter.put."""
        size = message.size if isinstance(message, pa.Buffer) else pa.ipc.get_record_batch_size(message)
        if _SMALL_BYTES <= size <= MAX_ARROW_BYTES:
            self.slots.put(message, self.requests)
            self.answers.write(frame_head(Kind.ARROW_PLACED, _PLACED.size) + _PLACED.pack(row_count, size))
            self.answers.flush()
        else:
            write_message(self.answers, row_count, memoryview(serialized(message)))


def write_message(stream: io.BufferedIOBase, row_count: int, message: memoryview) -> None:
    """One in its encapsulated form, through the pipe."""
    for start in range(0, len(message), MAX_ARROW_BYTES):
        part = message[start : start + MAX_ARROW_BYTES]
        if len(part) == len(message):
            kind = Kind.ARROW
        else:
            kind = Kind.ARROW_END if start + len(part) == len(message) else Kind.ARROW_PART
        stream.write(frame_head(kind, _ROWS.size + len(part)) + _ROWS.pack(row_count))
        stream.write(part)
    stream.flush()


def read_answer(stream: io.BufferedIOBase, envelope: Envelope, take: Take) -> Answered | None:
    """The next frame, or None where the stream ended between two. Raises ProtocolError."""
    head = read_head(stream, MAX_ANSWER_BYTES)
    if head is None:
        return None
    kind, length = head
    if kind is Kind.ARROW_PLACED:
        return _placed(read_exactly(stream, length), envelope, take)
    if kind not in _ARROW:
        return Answered(kind, read_exactly(stream, length))
    size = length - _ROWS.size
    if not 0 <= size <= MAX_ARROW_BYTES:
        raise ProtocolError(f"{size} bytes of Arrow in one frame")
    (row_count,) = _ROWS.unpack(read_exactly(stream, _ROWS.size))
    payload = _enveloped(stream, size, envelope) if kind is Kind.ARROW else read_exactly(stream, size)
    return Answered(kind, payload, row_count, size)


def _placed(told: bytes, envelope: Envelope, take: Take) -> Answered:
    """As any other message from here on."""
    if len(told) != _PLACED.size:
        raise ProtocolError(f"{len(told)} bytes about a slot")
    row_count, size = _PLACED.unpack(told)
    return Answered(Kind.ARROW, take(size, envelope), row_count, size)


def _enveloped(stream: io.BufferedIOBase, size: int, envelope: Envelope) -> bytes:
    prefix = read_exactly(stream, min(PREFIX_BYTES, size))
    length = header_bytes(prefix, size)
    body_bytes = size - length
    head = envelope(prefix + read_exactly(stream, length - len(prefix)), body_bytes)
    whole = io.BytesIO(bytes(len(head) + body_bytes))  # whose value is that object itself, since nobody else has it
    whole.write(head)
    with whole.getbuffer() as room:
        if stream.readinto(room[len(head) :]) < body_bytes:
            raise ProtocolError("the stream ended inside a frame")
    return whole.getvalue()
