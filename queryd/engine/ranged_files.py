"""The files that a cell does not see but asks queryd for, as a file system of the engine: read-only, and of no other
files than its query's.

The engine knows it as remote, so it reads a file's end and then, of the row groups and columns that a text needs, what
lies together in one piece. It is loaded only where there are such files, or before a process is forked.
"""

import threading
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import fsspec

from queryd.engine.messages import RANGED, RangedFile
from queryd.engine.ranges import RangeAsker

# An object never changes, so it is of any time.
_MODIFIED = datetime(2000, 1, 1, tzinfo=UTC)
# Each time that a text is bound the engine reads the end of the first file anew, for its columns.
_KEPT_ENDS, _END_BYTES = 8, 1 << 20


class RangedFiles(fsspec.AbstractFileSystem):  # type: ignore[misc] # which has no types
    """Of the query's list; `trace://<key>` is the path of each."""

    protocol = RANGED
    cachable = False

    def __init__(self, files: Sequence[RangedFile], asker: RangeAsker) -> None:
        super().__init__()
        self._asker = asker
        self._files = {file.key: (index, file.size_bytes) for index, file in enumerate(files)}
        self._ends: dict[int, bytes] = {}
        self.memory_failed = False
        """Whether there was no memory for what was to be read: the engine's own word for that is lost on the way."""

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        """As of fsspec. FileNotFoundError."""
        key = self._strip_protocol(path)
        if key not in self._files:
            raise FileNotFoundError(path)
        return {"name": key, "size": self._files[key][1], "type": "file"}

    def glob(self, path: str, **_: Any) -> list[str]:
        """No pattern matches more than the file that it names."""
        key = self._strip_protocol(path)
        return [key] if key in self._files else []

    def modified(self, path: str) -> datetime:
        return _MODIFIED

    def _open(self, path: str, mode: str = "rb", **_: Any) -> "_OpenFile":
        if mode != "rb":
            raise PermissionError(f"{path} is only read")
        index, size = self._files[self.info(path)["name"]]
        return _OpenFile(self, index, size)

    def read(self, index: int, position: int, length: int, size: int) -> bytes:
        """Bytes of a file of this size."""
        end = self._ends.get(index, b"")
        if position >= size - len(end):
            start = position - (size - len(end))
            return end[start : start + length]
        try:
            data = self._asker.read(index, position, length)
        except MemoryError:
            self.memory_failed = True
            raise
        if position + length == size and length <= _END_BYTES and len(self._ends) < _KEPT_ENDS:
            self._ends[index] = data
        return data


class _OpenFile:
    """As much of a file as the engine wants. Several threads may read from one: each has its own position."""

    def __init__(self, files: RangedFiles, index: int, size: int) -> None:
        self._files = files
        self._index = index
        self._size = size
        self._at = threading.local()

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at.position = offset
        return offset

    def tell(self) -> int:
        return int(getattr(self._at, "position", 0))

    def read(self, length: int) -> bytes:
        """All that was asked for, up to the file's end: the engine takes a shorter answer for a whole one."""
        position = self.tell()
        length = max(min(length, self._size - position), 0)
        data = self._files.read(self._index, position, length, self._size) if length else b""
        self._at.position = position + length
        return data

    def close(self) -> None:
        """There is nothing to give back."""
