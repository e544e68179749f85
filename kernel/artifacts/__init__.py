"""The artifact store: immutable objects by key, written once. The port is `store`, each adapter a module of its own."""

from pathlib import Path
from urllib.parse import unquote, urlsplit

from kernel.artifacts.local import LocalArtifactStore
from kernel.artifacts.store import ArtifactConflict, ArtifactMissing, ArtifactStore, StoredObject

__all__ = ["ArtifactConflict", "ArtifactMissing", "ArtifactStore", "LocalArtifactStore", "StoredObject", "open_store"]


def open_store(url: str) -> ArtifactStore:
    """The store that a URL names: `file:///absolute/folder`. ValueError for any other."""
    remedy = "this release has stores on a local disk: write file:///absolute/folder"
    parts = urlsplit(url)
    if parts.scheme != "file":
        raise ValueError(f"artifact store {url!r}: {remedy}")
    if parts.netloc not in ("", "localhost") or not parts.path.startswith("/") or parts.query or parts.fragment:
        raise ValueError(f"artifact store {url!r} is not the URL of a folder; {remedy}")
    return LocalArtifactStore(Path(unquote(parts.path)))
