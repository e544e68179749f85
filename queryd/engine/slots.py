"""Memory that a cell shares with queryd, through which the large messages of its answer go.

Through a pipe they would be copied once more, in pieces that wake queryd one by one. Here the cell writes a message
from the engine's buffers into a slot and says so in its pipe, and queryd takes it out by one read. The slots are a
ring, and both sides count: the nth message is in slot n modulo SLOTS, so there is nothing to be said about which.

Neither side waits for the other in a circle. queryd holds no slot: it copies a message out as soon as it hears of it
and frees the slot, by a frame in the cell's other pipe; that one has room for all of these, because a cell that takes
a slot again has read one of them. The cell waits, for such a frame, only while all slots are full of what queryd has
been told: that is the back-pressure. So what a slow client leaves in memory is at most SLOTS messages.

A cell that has run a text is not trusted, and may write here at any time. queryd never maps this memory: it looks at
its own copy alone. The memory cannot become smaller or larger (memfd_create(2), seals), and takes only what is written.
"""

import fcntl
import io
import os

import pyarrow as pa

from queryd.engine.arrow_messages import PREFIX_BYTES, Envelope, header_bytes
from queryd.engine.frames import Kind, ProtocolError, read_frame

SLOTS = 4
MAX_ARROW_BYTES = 3 << 20
"""Of one frame with Arrow in it, and of a message in a slot. Batches are cut to be smaller; only a row that is larger
itself takes several frames."""
# Before each message: what is sent before it takes a little more than its own header. A page, where pages begin.
_HEAD_ROOM = 4096
_SLOT_BYTES = _HEAD_ROOM + MAX_ARROW_BYTES
_NEVER_AGAIN = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL


class Slots:
    """queryd's side, for one thread."""

    def __init__(self) -> None:
        """Raises OSError."""
        self.descriptor = os.memfd_create("answer", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        """To be given to the cell."""
        self._taken = 0
        try:
            os.ftruncate(self.descriptor, SLOTS * _SLOT_BYTES)
            fcntl.fcntl(self.descriptor, fcntl.F_ADD_SEALS, _NEVER_AGAIN)
        except OSError:
            self.close()
            raise

    def take(self, size: int, envelope: Envelope) -> bytes:
        """A copy of the next message, of which the cell says this size, in its envelope. Raises ProtocolError.

        What is sent before the body is written over the message's header, so that one read gives all of it.
        """
        if not PREFIX_BYTES <= size <= MAX_ARROW_BYTES:
            raise ProtocolError(f"a message of {size} bytes in a slot")
        begin = _begin(self._taken)
        self._taken += 1
        try:
            length = header_bytes(os.pread(self.descriptor, PREFIX_BYTES, begin), size)
            head = envelope(os.pread(self.descriptor, length, begin), size - length)
            assert len(head) <= length + _HEAD_ROOM  # noqa: S101 - or it would reach into the slot before
            start = begin + length - len(head)
            os.pwrite(self.descriptor, head, start)
            whole = os.pread(self.descriptor, len(head) + size - length, start)
        except OSError as error:  # say, the cell has changed how this file is written
            raise ProtocolError(f"a message in a slot that cannot be read: {error}") from error
        if not whole.startswith(head):
            raise ProtocolError("a message was changed after it was told")
        return whole

    def close(self) -> None:
        os.close(self.descriptor)


class SlotWriter:
    """The cell's side, for one thread."""

    def __init__(self, descriptor: int) -> None:
        """Owns the descriptor. Needs /proc; all else here does without. Raises OSError."""
        self._memory = pa.memory_map(f"/proc/self/fd/{descriptor}", "r+")
        os.close(descriptor)
        self._given = 0
        self._batches: pa.RecordBatchStreamWriter | None = None

    def put(self, message: pa.RecordBatch | pa.Buffer, requests: io.BufferedIOBase) -> None:
        """Into the next slot, once word has come in `requests` that it is free. The message is of at most
        MAX_ARROW_BYTES, and all batches are of one schema, without dictionaries. BrokenPipeError where queryd has gone
        away."""
        if self._given >= SLOTS:
            _wait_freed(requests)
        begin = _begin(self._given)
        self._given += 1
        if isinstance(message, pa.RecordBatch) and self._batches is None:
            self._batches = self._opened(message.slice(0, 0))
        self._memory.seek(begin)
        if isinstance(message, pa.Buffer):
            self._memory.write(message)
        elif self._batches is None:
            self._memory.write(message.serialize())
        else:
            self._batches.write_batch(message)

    def _opened(self, empty: pa.RecordBatch) -> pa.RecordBatchStreamWriter | None:
        """A stream that has written its schema, as it does with its first batch: an empty one, while all slots are
        free. None where even these are too small for the schema."""
        size = empty.schema.serialize().size + pa.ipc.get_record_batch_size(empty)
        if self._given > 1 or size > self._memory.size():
            return None
        self._memory.seek(0)
        stream = pa.ipc.new_stream(self._memory, empty.schema)
        stream.write_batch(empty)
        return stream


def _begin(number: int) -> int:
    """Where this message, counted from 0, begins."""
    return number % SLOTS * _SLOT_BYTES + _HEAD_ROOM


def _wait_freed(requests: io.BufferedIOBase) -> None:
    frame = read_frame(requests, 0)
    if frame is None:
        raise BrokenPipeError("queryd has gone away")
    if frame[0] is not Kind.FREED:
        raise ProtocolError(f"{frame[0]} while a slot was awaited")
