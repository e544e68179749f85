"""Bundles on this worker: fetched from the artifact store by digest, checked, unpacked once, read-only."""

import asyncio
from pathlib import Path

from kernel import bundles
from kernel.artifacts.store import ArtifactStore
from kernel.errors import TraceError
from traceapi.types.v1 import errors_pb2

_MAX_BYTES = 512 << 20


class BundleFolders:
    """Folders by digest below `root`."""

    def __init__(self, store: ArtifactStore, root: Path) -> None:
        self._store = store
        self._root = root
        self._fetching: dict[str, asyncio.Task[Path]] = {}

    async def folder(self, digest: str) -> Path:
        """The unpacked bundle. TraceError ARTIFACT_LOST, BUNDLE_INVALID or BUNDLE_DIGEST_MISMATCH."""
        task = self._fetching.get(digest)
        if task is None or (task.done() and (task.cancelled() or task.exception() is not None)):
            task = asyncio.create_task(asyncio.to_thread(self._fetch, digest))
            self._fetching[digest] = task
        return await asyncio.shield(task)

    def _fetch(self, digest: str) -> Path:
        key = f"bundles/{digest}.tar"
        with self._store.open(key) as content:
            data = content.read(_MAX_BYTES + 1)
        if len(data) > _MAX_BYTES:
            raise TraceError(
                errors_pb2.ERROR_REASON_MESSAGE_TOO_LARGE, f"bundle {digest} has more than {_MAX_BYTES} bytes"
            )
        found = bundles.check(data)
        if found != digest:
            raise TraceError(
                errors_pb2.ERROR_REASON_BUNDLE_DIGEST_MISMATCH,
                f"the store has {found} under the name of bundle {digest}",
            )
        folder = self._root / digest
        bundles.unpack(data, folder)
        return folder


def path_within(folder: Path, document_path: str) -> Path:
    """What stood at the document's path: the folder itself; or the one file in it, where a file was packed, under its
    own name."""
    names = [entry.name for entry in folder.iterdir()]
    name = Path(document_path).name
    return folder / name if names == [name] and (folder / name).is_file() else folder
