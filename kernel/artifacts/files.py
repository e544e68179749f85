"""Files as sources of objects: opened without following anything, hashed a piece at a time."""

import hashlib
import os
import stat
from pathlib import Path
from typing import BinaryIO

CHUNK_BYTES = 1 << 20


def open_regular_file(path: Path) -> BinaryIO | None:
    """A regular file for reading; None where the path is something else, OSError for links and what is not there."""
    # Not blocking, or a pipe that lies there would hold the caller for ever.
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        return None
    return os.fdopen(descriptor, "rb")


def open_source(path: Path) -> BinaryIO:
    """The file that is to be stored. ValueError where it is not a regular file, OSError for links and nothing there."""
    content = open_regular_file(path)
    if content is None:
        raise ValueError(f"{path} is not a regular file")
    return content


def sha256_of(content: BinaryIO) -> bytes:
    """The digest of what is left to read."""
    digest = hashlib.sha256()
    while chunk := content.read(CHUNK_BYTES):
        digest.update(chunk)
    return digest.digest()
