"""Parts of stored files, as cells ask for them: a read-only bridge with an allow-list.

A cell has no network and no credential. It asks for a range of a file of its query, and of no other; queryd reads that
from the store and hands it on. Nothing of it is kept. What identifies a file is looked at before its first range is
read, once by each process: its size, and its digest where the store has that without reading the file. From then on
each range is of that very object (its entity tag), or the query ends.

Each cell that reads such files has a thread, which ends with it: it never waits for the store alone. A fetch that hangs
is left behind to the pool that does the fetches.
"""

import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import dataclass, field

from kernel.artifacts import ArtifactMissing, ArtifactStore, RangedObject
from kernel.artifacts.store import is_unavailable
from kernel.errors import TraceError
from queryd.engine.frames import ProtocolError
from queryd.engine.ranges import AT_ONCE, MAX_RANGE_BYTES, Asked, RangesEnd
from queryd.wanted import WantedFile, ending, lost
from traceapi.types.v1.errors_pb2 import ErrorReason

# With those of copies (queryd/file_cache.py) no more than the store's client has connections.
_FETCHES_AT_ONCE = 32
# The store's client tries a request again itself, but not one whose answer broke off.
_TRIES = 3
_OBJECTS_KEPT = 50_000
# What is larger is written in parts (kernel/artifacts/s3_upload.py), of which a store knows the digests alone.
_MOST_HASHED_BYTES = 1 << 30


class RangeSource:
    """Ranges of one store's files, for all cells."""

    def __init__(self, store: ArtifactStore) -> None:
        self._store = store
        self._threads = ThreadPoolExecutor(_FETCHES_AT_ONCE, thread_name_prefix="range")
        self._lock = threading.Lock()
        self._objects: OrderedDict[WantedFile, RangedObject] = OrderedDict()

    def begin(self, file: WantedFile, asked: Asked, wanted: Callable[[], bool]) -> "Future[bytes]":
        """The bytes, or TraceError ARTIFACT_LOST, or as the store; fewer tries where they are not wanted any more."""
        try:
            return self._threads.submit(self._read, file, asked, wanted)
        except RuntimeError as error:
            raise ending() from error

    def check(self, file: WantedFile) -> None:
        """Raises ARTIFACT_LOST where the store has another object than was recorded. One whose digest it does not know
        is read for that, unless it is very large."""
        with self._lock:
            self._objects.pop(file, None)
        if not self._object(file).sha256 and file.size_bytes <= _MOST_HASHED_BYTES:
            stored = self._store.stat(file.key, digest=True)
            if stored is None or stored.sha256 != file.sha256:
                raise lost(file, "does not have the content that was recorded")

    def close(self) -> None:
        """Fetches nothing more. A fetch that hangs is left to the end of the process."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _read(self, file: WantedFile, asked: Asked, wanted: Callable[[], bool]) -> bytes:
        for _ in range(_TRIES - 1):
            try:
                return self._read_once(file, asked)
            except TraceError as error:
                if not is_unavailable(error) or not wanted():
                    raise
        return self._read_once(file, asked)

    def _read_once(self, file: WantedFile, asked: Asked) -> bytes:
        found = self._object(file)
        try:
            data = found.read(asked.position, asked.length)
        except TraceError as error:
            if error.reason != ErrorReason.ERROR_REASON_ARTIFACT_LOST:
                raise
            with self._lock:
                self._objects.pop(file, None)
            raise lost(file, "was replaced or removed while it was read") from error
        if len(data) != asked.length:
            raise lost(file, "has fewer bytes than were recorded")
        return data

    def _object(self, file: WantedFile) -> RangedObject:
        """It, if it is what was recorded."""
        with self._lock:
            known = self._objects.get(file)
        if known is not None:
            return known
        try:
            found = self._store.ranged(file.key)
        except ArtifactMissing as error:
            raise lost(file, "is not in the store") from error
        if found.size_bytes != file.size_bytes:
            raise lost(file, "has another size than was recorded")
        if found.sha256 not in (b"", file.sha256):
            raise lost(file, "does not have the content that was recorded")
        with self._lock:
            self._objects[file] = found
            while len(self._objects) > _OBJECTS_KEPT:
                self._objects.popitem(last=False)
        return found


@dataclass(slots=True)
class RangeService:
    """Gives one cell the ranges that it asks for of these files, by `serve`, in a thread. `fail` ends its query: with a
    TraceError of the store's, or a ProtocolError of the cell's doing."""

    source: RangeSource
    files: Sequence[WantedFile]
    fail: Callable[[TraceError | ProtocolError], None]
    _ended: threading.Event = field(default_factory=threading.Event)

    def serve(self, end: RangesEnd) -> None:
        """Until the cell is stopped or has ended."""
        fetches: deque[Future[bytes]] = deque()
        try:
            while True:
                if fetches and fetches[0].done():
                    end.answer(fetches.popleft().result())
                    continue
                room = AT_ONCE - len(fetches)
                end.wait(requests=room > 0)
                for asked in end.requests(room) if room else ():
                    fetch = self.source.begin(self._allowed(asked), asked, self._is_wanted)
                    fetches.append(fetch)
                    fetch.add_done_callback(lambda _: end.tell())
        except ConnectionError:
            pass  # nobody wants more
        except CancelledError:
            self.fail(ending())
        except (TraceError, ProtocolError) as error:
            self.fail(error)
        except Exception:  # or the cell would wait until its time is up
            self.fail(TraceError(ErrorReason.ERROR_REASON_INTERNAL, "a defect"))
            raise
        finally:
            self._ended.set()
            for fetch in fetches:
                fetch.cancel()

    def _allowed(self, asked: Asked) -> WantedFile:
        """The file, if this is a range of one of the query's. Raises ProtocolError."""
        if asked.index >= len(self.files):
            raise ProtocolError(f"file {asked.index} of {len(self.files)}")
        file = self.files[asked.index]
        if not 0 < asked.length <= MAX_RANGE_BYTES or asked.position + asked.length > file.size_bytes:
            raise ProtocolError(f"{asked.length} bytes at {asked.position} of a file of {file.size_bytes}")
        return file

    def _is_wanted(self) -> bool:
        return not self._ended.is_set()
