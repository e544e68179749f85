"""Frames, in which queryd and a cell speak over the cell's standard streams: one letter, a length, and bytes.

Both sides are this file. It needs the standard library only, because a cell loads it before it is asked anything. What
the bytes say is in queryd/engine/messages.py, and of an answer in queryd/engine/answers.py.
"""

import io
import struct
from enum import Enum

_HEADER = struct.Struct(">cI")
# The largest list of files, 10^5 of them, is 7 MB of text.
MAX_JOB_BYTES = 1 << 30
MAX_ANSWER_BYTES = 16 << 20


class Kind(Enum):
    """The letter of a frame."""

    # From a cell that is ready for its job.
    READY = b"r"
    # To a cell: hold a text against the gate. Its answer: CHECKED or FAILED.
    CHECK = b"c"
    CHECKED = b"n"
    # To a cell, after a text: what is demanded of rows, by what the virtual datasets behind it pass on. Its answer:
    # DEMANDED.
    DEMAND = b"g"
    DEMANDED = b"h"
    # To a cell, before the text: values of its parameters, as the client sent them.
    PARAMETERS = b"v"
    # To a cell, before its job: the files that it asks for by ranges (queryd/engine/ranges.py).
    FILES = b"b"
    # To a cell: a table of scopes, as an Arrow stream, that the job after it names by its index; further rows of the
    # last one.
    TABLE = b"t"
    TABLE_ROWS = b"u"
    # To a cell: make the relations, and say what the answer to the text will look like. Its answer: SCHEMA or FAILED.
    DESCRIBE = b"d"
    SCHEMA = b"s"
    # To a cell that has described a text: say of which types its parameters are. Its answer: TYPED, an Arrow schema.
    TYPE = b"y"
    TYPED = b"z"
    # To a cell that has described a text: run it, or plan it. Its answer: ARROW any number of times and FINISHED, or
    # PLAN, or FAILED. A message too large for one frame comes in ARROW_PART, any number of times, and ARROW_END
    # (queryd/engine/answers.py). ARROW_PLACED says that one is in the next slot of the shared memory; queryd says
    # FREED once it has copied it (queryd/engine/slots.py).
    RUN = b"q"
    EXPLAIN = b"x"
    ARROW = b"a"
    ARROW_PART = b"m"
    ARROW_END = b"l"
    ARROW_PLACED = b"o"
    FREED = b"k"
    FINISHED = b"f"
    PLAN = b"p"
    FAILED = b"e"


class ProtocolError(Exception):
    """The other side broke the rules above."""


def write_frame(stream: io.RawIOBase | io.BufferedIOBase, kind: Kind, payload: bytes) -> None:
    """Writes one frame and flushes. Blocks while the other side does not read: that is the back-pressure."""
    stream.write(frame_head(kind, len(payload)))
    stream.write(payload)
    stream.flush()


def read_frame(stream: io.BufferedIOBase, max_bytes: int) -> tuple[Kind, bytes] | None:
    """The next frame, or None where the stream ended between two. Raises ProtocolError."""
    head = read_head(stream, max_bytes)
    return None if head is None else (head[0], read_exactly(stream, head[1]))


def frame_head(kind: Kind, length: int) -> bytes:
    """What a frame begins with."""
    return _HEADER.pack(kind.value, length)


def read_head(stream: io.BufferedIOBase, max_bytes: int) -> tuple[Kind, int] | None:
    """Kind and length of the next frame, whose payload follows. Otherwise as read_frame."""
    header = stream.read(_HEADER.size)
    if not header:
        return None
    if len(header) < _HEADER.size:
        raise ProtocolError("the stream ended inside a frame")
    letter, length = _HEADER.unpack(header)
    if length > max_bytes:
        raise ProtocolError(f"a frame of {length} bytes")
    try:
        return Kind(letter), length
    except ValueError as error:
        raise ProtocolError(f"a frame of the unknown kind {letter!r}") from error


def read_exactly(stream: io.BufferedIOBase, length: int) -> bytes:
    """Raises ProtocolError where the stream ends before."""
    data = stream.read(length)
    if len(data) < length:
        raise ProtocolError("the stream ended inside a frame")
    return data
