"""Copies of stored files on this machine's disk: bounded, checked, and never taken from who reads them.

A copy is known by the SHA-256 of its content, which is also its name, and is hashed as it arrives: what is under a name
is what the name says, whole. Who holds files holds all of them or none, in the order of asking: nobody keeps a part of
the room while waiting for more of it, and a large wish is not starved by small ones; only a wish for what is all here,
or under way, waits for nobody, since it needs no room. Room is taken before the first byte is fetched, so the limit
holds at every moment. What nobody holds stays, until its room is wanted: the longest unused goes first.

The cache begins empty with each process: what a crash left is gone with the folder (queryd/engine/scratch.py).
"""

import hashlib
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from kernel.artifacts import ArtifactMissing, ArtifactStore
from kernel.errors import TraceError
from kernel.ids import new_id
from queryd.wanted import WantedFile, ending, lost
from traceapi.types.v1.errors_pb2 import ErrorReason

_FETCHES_AT_ONCE = 16
_CHUNK_BYTES = 1 << 20
# Between two looks at whether the wish still stands.
_LOOK_SECONDS = 0.2
# What closing waits for what is under way: between two chunks a fetch sees that it is to end, but not within one, and a
# store that is away keeps it waiting for minutes.
_CLOSE_SECONDS = 2.0


@dataclass(eq=False, slots=True)
class _Copy:
    """A file that is here, or comes."""

    wanted: WantedFile
    path: Path
    users: int = 0
    fetched: "Future[None] | None" = None

    @property
    def stays(self) -> bool:
        """Whether its room cannot be had now."""
        return self.users > 0 or self.fetched is None or not self.fetched.done()


class FileCache:
    """Copies of one store's files in `folder`, which is its own, of together at most `limit_bytes`."""

    def __init__(self, store: ArtifactStore, folder: Path, limit_bytes: int) -> None:
        self._store = store
        self._files, self._unfinished = folder / "files", folder / "unfinished"
        for made in (self._files, self._unfinished):
            made.mkdir(parents=True)
        self._limit = limit_bytes
        self._bytes = 0
        # The longest unused first.
        self._copies: OrderedDict[bytes, _Copy] = OrderedDict()
        self._queue: deque[object] = deque()
        self._changed = threading.Condition()
        self._threads = ThreadPoolExecutor(_FETCHES_AT_ONCE, thread_name_prefix="fetch")
        self._closing = threading.Event()

    @contextmanager
    def held(self, wanted: Collection[WantedFile], check: Callable[[], None]) -> Iterator[Mapping[bytes, Path]]:
        """The files by digest, to be read while the block lasts. `check` raises where they are not wanted any more.

        TraceError QUERY_LIMIT where they would never fit, ARTIFACT_LOST, UNAVAILABLE at the end, or as the store.
        """
        copies = self._take({file.sha256: file for file in wanted}, check)
        try:
            for copy in copies:
                _await(copy, check)
            yield {copy.wanted.sha256: copy.path for copy in copies}
        finally:
            self._let_go(copies)

    def could_hold(self, wanted: Collection[WantedFile]) -> bool:
        """Whether they fit, if nothing else were here."""
        return sum(file.size_bytes for file in wanted) <= self._limit

    def drop_damaged(self, file: WantedFile) -> bool:
        """Looks whether the copy is what it was; forgets it where it is not. For files that are held."""
        with self._changed:
            copy = self._copies.get(file.sha256)
        if copy is None or _digest_of(copy.path) == file.sha256:
            return False
        with self._changed:
            if self._copies.get(file.sha256) is copy:
                self._forget(copy)
        return True

    def close(self) -> None:
        """Fetches nothing more. A fetch that hangs is left to the end of the process."""
        self._closing.set()
        self._threads.shutdown(wait=False, cancel_futures=True)
        with self._changed:
            under_way = [copy.fetched for copy in self._copies.values() if copy.fetched is not None]
        wait(under_way, _CLOSE_SECONDS)

    def _take(self, wanted: Mapping[bytes, WantedFile], check: Callable[[], None]) -> list[_Copy]:
        total = sum(file.size_bytes for file in wanted.values())
        if total > self._limit:
            message = f"the query reads files of {total:,} bytes; this server keeps at most {self._limit:,} at a time"
            raise TraceError(ErrorReason.ERROR_REASON_QUERY_LIMIT, message, metadata={"limit": "cache"})
        turn = object()
        with self._changed:
            self._queue.append(turn)
            try:
                while not self._is_here(wanted) and (self._queue[0] is not turn or not self._has_room(wanted, total)):
                    self._changed.wait(_LOOK_SECONDS)
                    check()
                if self._closing.is_set():
                    raise ending()
                return self._taken(wanted)
            finally:
                self._queue.remove(turn)
                self._changed.notify_all()

    def _is_here(self, wanted: Collection[bytes]) -> bool:
        return all(digest in self._copies for digest in wanted)

    def _has_room(self, wanted: Mapping[bytes, WantedFile], total: int) -> bool:
        new = sum(file.size_bytes for digest, file in wanted.items() if digest not in self._copies)
        if self._bytes + new <= self._limit:
            return True
        staying = sum(
            copy.wanted.size_bytes for digest, copy in self._copies.items() if copy.stays and digest not in wanted
        )
        return staying + total <= self._limit

    def _taken(self, wanted: Mapping[bytes, WantedFile]) -> list[_Copy]:
        taken, new = [], []
        for digest, file in wanted.items():
            copy = self._copies.get(digest)
            if copy is None:
                copy = self._copies[digest] = _Copy(file, self._path(digest))
                self._bytes += file.size_bytes
                new.append(copy)
            self._copies.move_to_end(digest)
            copy.users += 1
            taken.append(copy)
        self._make_room()
        for copy in new:
            copy.fetched = self._threads.submit(self._fetch, copy)
            copy.fetched.add_done_callback(partial(self._on_fetched, copy))
        return taken

    def _make_room(self) -> None:
        if self._bytes > self._limit:
            for copy in [copy for copy in self._copies.values() if not copy.stays]:
                self._forget(copy)
                if self._bytes <= self._limit:
                    return

    def _forget(self, copy: _Copy) -> None:
        del self._copies[copy.wanted.sha256]
        self._bytes -= copy.wanted.size_bytes
        copy.path.unlink(missing_ok=True)

    def _let_go(self, copies: Collection[_Copy]) -> None:
        with self._changed:
            for copy in copies:
                copy.users -= 1
                # What has not begun need not: nobody waits for it any more.
                if copy.users == 0 and copy.fetched is not None:
                    copy.fetched.cancel()
            self._changed.notify_all()

    def _on_fetched(self, copy: _Copy, done: "Future[None]") -> None:
        """What did not come takes no room. Its users have the error."""
        with self._changed:
            failed = done.cancelled() or done.exception() is not None
            if failed and self._copies.get(copy.wanted.sha256) is copy:
                self._forget(copy)
            self._changed.notify_all()

    def _fetch(self, copy: _Copy) -> None:
        unfinished = self._unfinished / new_id()
        try:
            if self._copied(copy.wanted, unfinished) != copy.wanted.sha256:
                raise lost(copy.wanted, "does not have the content that was recorded")
            unfinished.chmod(0o444)
            copy.path.parent.mkdir(exist_ok=True)
            unfinished.rename(copy.path)
        except ArtifactMissing as error:
            raise lost(copy.wanted, "is not in the store") from error
        except OSError as error:
            message = f"this server cannot keep a copy of {copy.wanted.key}: {error.strerror}"
            raise TraceError(ErrorReason.ERROR_REASON_UNAVAILABLE, message) from error
        finally:
            unfinished.unlink(missing_ok=True)

    def _copied(self, wanted: WantedFile, target: Path) -> bytes:
        """Copies as much as was recorded; answers its digest. ARTIFACT_LOST for an object of another size."""
        digest, left = hashlib.sha256(), wanted.size_bytes
        with self._store.open(wanted.key) as source, target.open("xb") as file:
            while chunk := source.read(_CHUNK_BYTES):
                if self._closing.is_set():
                    raise ending()
                left -= len(chunk)
                if left < 0:
                    break
                digest.update(chunk)
                file.write(chunk)
        if left:
            raise lost(wanted, "has another size than was recorded")
        return digest.digest()

    def _path(self, digest: bytes) -> Path:
        name = digest.hex()
        return self._files / name[:2] / name


def _await(copy: _Copy, check: Callable[[], None]) -> None:
    assert copy.fetched is not None  # noqa: S101 - set before the copy was handed out
    while not copy.fetched.done():  # also by being canceled, which `wait` alone does not see
        wait([copy.fetched], _LOOK_SECONDS)
        check()
    try:
        copy.fetched.result()
    except CancelledError as error:  # of what somebody waits for nothing is cancelled but at the end
        raise ending() from error


def _digest_of(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except FileNotFoundError:
        return b""
