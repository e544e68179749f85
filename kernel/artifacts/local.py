"""The artifact store on a local disk.

A write goes to a temporary name in the same filesystem, is flushed, and is then linked to its key. The link is the one
step that matters: it is atomic, it fails where the key exists (nothing is ever overwritten, whoever races), and the
folder is flushed before the caller hears of success. A crash leaves at most a temporary file.
"""

import contextlib
import hashlib
import io
import os
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from kernel.artifacts.files import CHUNK_BYTES, open_regular_file, open_source, sha256_of
from kernel.artifacts.store import (
    ArtifactConflict,
    ArtifactMissing,
    RangedObject,
    StoredObject,
    UnfinishedWrite,
    check_key,
    check_prefix,
    store_unusable,
)
from kernel.crash import crash
from kernel.ids import new_id

# '~' is in no key, so nothing in there can be mistaken for an object.
_UNFINISHED = "~unfinished"


class LocalArtifactStore:
    """Objects as files below `root`, which is made when it is first needed. Files are read-only (0444)."""

    def __init__(self, root: Path) -> None:
        if not root.is_absolute():
            raise ValueError(f"artifact store {root}: the folder must be an absolute path")
        self._root = root

    def put(self, key: str, source: Path) -> StoredObject:
        """Store a copy of a regular file; links are not followed."""
        with open_source(source) as content:
            return self._put(key, content)

    def put_bytes(self, key: str, data: bytes) -> StoredObject:
        """Store the bytes."""
        return self._put(key, io.BytesIO(data))

    def stat(self, key: str, *, digest: bool) -> StoredObject | None:
        """The object, or None."""
        try:
            content = self.open(key)
        except ArtifactMissing:
            return None
        with content:
            size = os.fstat(content.fileno()).st_size
            return StoredObject(key, size, sha256_of(content) if digest else b"")

    def open(self, key: str) -> BinaryIO:
        """The object's content."""
        try:
            content = open_regular_file(self._path(key))
        except (FileNotFoundError, NotADirectoryError) as error:
            raise ArtifactMissing(key) from error
        if content is None:
            raise ArtifactMissing(key)
        return content

    def ranged(self, key: str) -> RangedObject:
        """The object. What is read is what the key has then."""
        with self.open(key) as content:
            size = os.fstat(content.fileno()).st_size

        def read(position: int, length: int) -> bytes:
            with self.open(key) as content:
                return os.pread(content.fileno(), length, position)

        return RangedObject(size, b"", read)

    def local_path(self, key: str) -> Path | None:
        """The file of the key, whether it is there or not."""
        return self._path(key)

    def list(self, prefix: str) -> Iterator[StoredObject]:
        """The objects whose key begins with `prefix`, as the folders have them."""
        folder, slash, _ = check_prefix(prefix).rpartition("/")
        yield from self._below(folder + slash, prefix)

    def delete(self, keys: Sequence[str]) -> None:
        """Remove the files; their folders stay, where others may be about to be linked."""
        for key in keys:
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                self._path(key).unlink()

    def unfinished(self) -> Iterator[UnfinishedWrite]:
        """The files under temporary names."""
        for entry in _entries(self._root / _UNFINISHED):
            with contextlib.suppress(FileNotFoundError):
                found = entry.stat(follow_symlinks=False)
                yield UnfinishedWrite(entry.name, "", found.st_size, _time(found.st_mtime))

    def discard(self, write: UnfinishedWrite) -> None:
        """Remove the file. Who would still link it finds nothing to link."""
        if "/" in write.name:
            raise ValueError(f"{write.name!r} is no temporary name")
        (self._root / _UNFINISHED / write.name).unlink(missing_ok=True)

    def _below(self, beginning: str, prefix: str) -> Iterator[StoredObject]:
        """The objects in the folder `beginning`, empty or ending in `/`, and below."""
        for entry in _entries(self._root / beginning):
            key = beginning + entry.name
            if "~" in entry.name:
                continue
            if entry.is_dir(follow_symlinks=False):
                inner = f"{key}/"
                if inner.startswith(prefix) or prefix.startswith(inner):
                    yield from self._below(inner, prefix)
            elif key.startswith(prefix):
                with contextlib.suppress(FileNotFoundError):
                    found = entry.stat(follow_symlinks=False)
                    yield StoredObject(key, found.st_size, b"", _time(found.st_mtime))

    def check(self, *, writable: bool) -> None:
        """The folder can be read, or made and written to."""
        try:
            if writable:
                _make_folder(self._root / _UNFINISHED)
                self._write_probe()
            elif self._root.exists():
                os.scandir(self._root).close()
        except OSError as error:
            doing = "written to" if writable else "read"
            remedy = f"name a folder that user {os.geteuid()} may use, or give it the rights"
            raise store_unusable(f"file://{self._root}", f"it cannot be {doing}: {error}", remedy) from error

    def _write_probe(self) -> None:
        probe = self._root / _UNFINISHED / new_id()
        probe.touch()
        probe.unlink()

    def _path(self, key: str) -> Path:
        return self._root / check_key(key)

    def _put(self, key: str, content: BinaryIO) -> StoredObject:
        final = self._path(key)
        unfinished = self._root / _UNFINISHED / new_id()
        _make_folder(unfinished.parent)
        try:
            stored = _write(unfinished, content, key)
            _make_folder(final.parent)
            crash("object.written")
            try:
                os.link(unfinished, final)
            except FileExistsError:
                if self.stat(key, digest=True) != stored:
                    raise ArtifactConflict(key) from None
            crash("object.linked")
            # Also on a repeat: the first writer may have crashed between its link and this.
            _flush_folder(final.parent)
            return stored
        finally:
            unfinished.unlink(missing_ok=True)


def _write(path: Path, content: BinaryIO, key: str) -> StoredObject:
    """Copy the content to a new file, durably; size and digest are of what was written."""
    digest, size = hashlib.sha256(), 0
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        while chunk := content.read(CHUNK_BYTES):
            file.write(chunk)
            digest.update(chunk)
            size += len(chunk)
        file.flush()
        os.fchmod(descriptor, 0o444)
        os.fsync(descriptor)
    return StoredObject(key, size, digest.digest())


def _entries(folder: Path) -> Iterator["os.DirEntry[str]"]:
    """What lies in a folder; nothing where there is none."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder) as entries:
        yield from entries


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _make_folder(folder: Path) -> None:
    """Make the folder and those above it, durably: a file in a folder that a crash takes away is lost with it."""
    if folder.is_dir():
        return
    _make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    _flush_folder(folder.parent)


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
