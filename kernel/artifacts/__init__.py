"""The artifact store: immutable objects by key, written once. The port is `store`, each adapter a module of its own."""

from pathlib import Path
from urllib.parse import unquote, urlsplit

from kernel.artifacts import s3_location
from kernel.artifacts.local import LocalArtifactStore
from kernel.artifacts.s3_location import S3Location
from kernel.artifacts.start import require_usable
from kernel.artifacts.store import (
    ArtifactConflict,
    ArtifactMissing,
    ArtifactStore,
    RangedObject,
    StoredObject,
    UnfinishedWrite,
)

__all__ = [
    "ArtifactConflict",
    "ArtifactMissing",
    "ArtifactStore",
    "LocalArtifactStore",
    "RangedObject",
    "StoredObject",
    "UnfinishedWrite",
    "check_store_url",
    "open_store",
    "require_usable",
]

_REMEDY = f"write file:///absolute/folder or {s3_location.EXAMPLE}"


def open_store(url: str) -> ArtifactStore:
    """The store that a URL names: `file:///absolute/folder`, or `s3://bucket/prefix?endpoint=...&region=...`.

    Asks nobody whether it is there: that is the store's `check`. ValueError for any other URL.
    """
    if urlsplit(url).scheme == "s3":
        location = S3Location.parse(url)
        # It takes a third of a second, which who stores on a disk need not wait for.
        from kernel.artifacts.s3 import S3ArtifactStore

        return S3ArtifactStore(location)
    return LocalArtifactStore(_folder(url))


def check_store_url(url: str) -> None:
    """ValueError where `open_store` would raise it."""
    if urlsplit(url).scheme == "s3":
        S3Location.parse(url)
    else:
        _folder(url)


def _folder(url: str) -> Path:
    parts = urlsplit(url)
    if parts.scheme != "file":
        raise ValueError(f"artifact store {url!r}: {_REMEDY}")
    if parts.netloc not in ("", "localhost") or not parts.path.startswith("/") or parts.query or parts.fragment:
        raise ValueError(f"artifact store {url!r} is not the URL of a folder; {_REMEDY}")
    return Path(unquote(parts.path))
