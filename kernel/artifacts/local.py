"""The artifact store on a local disk.

A write goes to a temporary name in the same filesystem, is flushed, and is then linked to its key. The link is the one
step that matters: it is atomic, it fails where the key exists (nothing is ever overwritten, whoever races), and the
folder is flushed before the caller hears of success. A crash leaves at most a temporary file.
"""

import hashlib
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from kernel.artifacts.files import CHUNK_BYTES, open_regular_file, open_source, sha256_of
from kernel.artifacts.store import (
    ArtifactConflict,
    ArtifactMissing,
    StoredObject,
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

    def local_path(self, key: str) -> Path | None:
        """The file of the key, whether it is there or not."""
        return self._path(key)

    def list(self, prefix: str) -> Iterator[StoredObject]:
        """The objects whose key begins with `prefix`, by key."""
        folder = self._root / check_prefix(prefix).rpartition("/")[0]
        found = []
        for parent, folders, names in os.walk(folder):
            if _UNFINISHED in folders:
                folders.remove(_UNFINISHED)
            for name in names:
                path = Path(parent, name)
                key = path.relative_to(self._root).as_posix()
                if key.startswith(prefix):
                    found.append((key, path))
        for key, path in sorted(found):
            yield StoredObject(key, path.stat().st_size, b"")

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
