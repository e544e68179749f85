"""Cuts the bytes of an Arrow IPC stream into its messages, before any of them is believed.

Source: the Arrow columnar format, "Encapsulated message format" and Message.fbs. A message is a continuation marker,
the length of its metadata, the metadata (a flatbuffer that states its kind and the length of its body), and the body.
Reading these few fields here puts limits where the Arrow library has none: on the size of a message, and on
compressed bodies, whose stated size a reader allocates before it looks at a byte.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

MAX_METADATA_BYTES = 4 << 20
MAX_BODY_BYTES = 256 << 20
_CONTINUATION = 0xFFFFFFFF
_PREFIX_BYTES = 8


class FramingError(ValueError):
    """The bytes are no Arrow IPC stream of the accepted kind."""


class Kind(IntEnum):
    """MessageHeader of the format, as far as it is accepted."""

    SCHEMA = 1
    RECORD_BATCH = 3


@dataclass(frozen=True, slots=True)
class Frame:
    """One whole message with its prefix, as the Arrow library reads it."""

    kind: Kind
    content: bytes


class Framer:
    """Takes bytes as they come, gives whole messages. Holds at most one message and one chunk."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._ended = False

    def feed(self, data: bytes) -> Iterator[Frame]:
        """The messages that these bytes complete. FramingError for what is not accepted."""
        self._buffer += data
        while (frame := self._next()) is not None:
            yield frame

    def finish(self) -> None:
        """FramingError where the stream ends inside a message. A missing end marker is fine: the call itself has
        ended."""
        if self._buffer:
            raise FramingError("the stream ends inside a message")

    def _next(self) -> Frame | None:
        buffer = self._buffer
        if self._ended and buffer:
            raise FramingError("there are bytes after the end of the stream")
        if len(buffer) < _PREFIX_BYTES:
            return None
        marker, metadata_bytes = struct.unpack_from("<Ii", buffer)
        if marker != _CONTINUATION:
            raise FramingError("a message does not begin with the continuation marker")
        if metadata_bytes == 0:
            self._ended = True
            del buffer[:_PREFIX_BYTES]
            return self._next()
        if not 8 <= metadata_bytes <= MAX_METADATA_BYTES:
            raise FramingError(
                f"a message's metadata have {metadata_bytes} bytes; at most {MAX_METADATA_BYTES} are accepted"
            )
        if len(buffer) < _PREFIX_BYTES + metadata_bytes:
            return None
        kind, body_bytes = _read_header(memoryview(buffer)[_PREFIX_BYTES : _PREFIX_BYTES + metadata_bytes].toreadonly())
        total = _PREFIX_BYTES + metadata_bytes + body_bytes
        if len(buffer) < total:
            return None
        content = bytes(memoryview(buffer)[:total])
        del buffer[:total]
        return Frame(kind, content)


def _read_header(metadata: memoryview) -> tuple[Kind, int]:
    """Kind and length of the body."""
    try:
        message = _Table.root(metadata)
        number = message.uint8(1)
        body_bytes = message.int64(3)
        if number not in (Kind.SCHEMA, Kind.RECORD_BATCH):
            raise FramingError("only schemas and record batches are accepted: no dictionaries, no tensors")
        header = message.table(2)
        if number == Kind.RECORD_BATCH and header.has(3):
            raise FramingError("compressed record batches are not accepted")
    except (struct.error, IndexError) as error:
        raise FramingError("a message's metadata are malformed") from error
    if not 0 <= body_bytes <= MAX_BODY_BYTES:
        raise FramingError(
            f"a message's body has {body_bytes} bytes; at most {MAX_BODY_BYTES} are accepted: write smaller batches"
        )
    return Kind(number), body_bytes


@dataclass(frozen=True, slots=True)
class _Table:
    """A flatbuffer table: fields by the numbers of Message.fbs. Offsets outside of the buffer raise struct.error."""

    buffer: memoryview
    position: int

    @staticmethod
    def root(buffer: memoryview) -> "_Table":
        return _Table(buffer, struct.unpack_from("<I", buffer, 0)[0])

    def has(self, field: int) -> bool:
        return self._offset(field) != 0

    def uint8(self, field: int) -> int:
        offset = self._offset(field)
        value: int = struct.unpack_from("<B", self.buffer, self.position + offset)[0] if offset else 0
        return value

    def int64(self, field: int) -> int:
        offset = self._offset(field)
        value: int = struct.unpack_from("<q", self.buffer, self.position + offset)[0] if offset else 0
        return value

    def table(self, field: int) -> "_Table":
        offset = self._offset(field)
        if not offset:
            raise FramingError("a message has no header")
        start = self.position + offset
        return _Table(self.buffer, start + struct.unpack_from("<I", self.buffer, start)[0])

    def _offset(self, field: int) -> int:
        """Where a field stands from the table's position; 0 where it is absent."""
        vtable = self.position - struct.unpack_from("<i", self.buffer, self.position)[0]
        if vtable < 0:
            raise FramingError("a message's metadata are malformed")
        vtable_bytes = struct.unpack_from("<H", self.buffer, vtable)[0]
        slot = 4 + 2 * field
        offset: int = struct.unpack_from("<H", self.buffer, vtable + slot)[0] if slot < vtable_bytes else 0
        return offset
