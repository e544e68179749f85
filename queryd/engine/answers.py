"""The messages of an answer: from the cell into its pipe, and from the pipe into what is sent.

A message of Arrow is its header and its body, and travels in a message of gRPC. Put together from parts, or written by
protobuf, a body would be copied once more for each step. So what precedes it there is made first, with room for the
body, and the pipe is read into that room.
"""

import io
import struct
from collections.abc import Callable
from dataclasses import dataclass

from queryd.engine.frames import MAX_ANSWER_BYTES, Kind, ProtocolError, frame_head, read_exactly, read_head

MAX_ARROW_BYTES = 3 << 20
"""Of one frame with Arrow in it. Batches are cut to be smaller; only a row that is larger itself takes several."""
_ROWS = struct.Struct(">Q")
_ARROW = (Kind.ARROW, Kind.ARROW_PART, Kind.ARROW_END)
# In Arrow's encapsulated form a message begins with a marker and the length of its header.
_PREFIX = struct.Struct("<4sI")
_MARKER = b"\xff\xff\xff\xff"

Envelope = Callable[[bytes, int], bytes]
"""What is sent before a body: by the message's header, with its marker and length, and the size of the body."""


@dataclass(frozen=True, slots=True)
class Answered:
    """A frame of an answer. Of Arrow: `row_count` rows up to here, `arrow_bytes` bytes; `payload` is what is sent of a
    whole message, else a part of it as it is."""

    kind: Kind
    payload: bytes
    row_count: int = 0
    arrow_bytes: int = 0


def write_message(stream: io.BufferedIOBase, row_count: int, message: memoryview) -> None:
    """One message in its encapsulated form, with the rows that it and those before it hold."""
    for start in range(0, len(message), MAX_ARROW_BYTES):
        part = message[start : start + MAX_ARROW_BYTES]
        if len(part) == len(message):
            kind = Kind.ARROW
        else:
            kind = Kind.ARROW_END if start + len(part) == len(message) else Kind.ARROW_PART
        stream.write(frame_head(kind, _ROWS.size + len(part)) + _ROWS.pack(row_count))
        stream.write(part)
    stream.flush()


def read_answer(stream: io.BufferedIOBase, envelope: Envelope) -> Answered | None:
    """The next frame, or None where the stream ended between two. Raises ProtocolError."""
    head = read_head(stream, MAX_ANSWER_BYTES)
    if head is None:
        return None
    kind, length = head
    if kind not in _ARROW:
        return Answered(kind, read_exactly(stream, length))
    size = length - _ROWS.size
    if not 0 <= size <= MAX_ARROW_BYTES:
        raise ProtocolError(f"{size} bytes of Arrow in one frame")
    (row_count,) = _ROWS.unpack(read_exactly(stream, _ROWS.size))
    payload = _enveloped(stream, size, envelope) if kind is Kind.ARROW else read_exactly(stream, size)
    return Answered(kind, payload, row_count, size)


def _enveloped(stream: io.BufferedIOBase, size: int, envelope: Envelope) -> bytes:
    if size < _PREFIX.size:
        raise ProtocolError(f"a message of {size} bytes")
    prefix = read_exactly(stream, _PREFIX.size)
    marker, header_bytes = _PREFIX.unpack(prefix)
    body_bytes = size - _PREFIX.size - header_bytes
    if marker != _MARKER or body_bytes < 0:
        raise ProtocolError("a message that is none of Arrow")
    head = envelope(prefix + read_exactly(stream, header_bytes), body_bytes)
    whole = io.BytesIO(bytes(len(head) + body_bytes))  # whose value is that object itself, since nobody else has it
    whole.write(head)
    with whole.getbuffer() as room:
        if stream.readinto(room[len(head) :]) < body_bytes:
            raise ProtocolError("the stream ended inside a frame")
    return whole.getvalue()
