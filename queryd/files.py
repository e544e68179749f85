"""How a cell comes to see the files that its query has pinned.

A store on this machine's disk is read in place: every cell sees all of it, and the engine is locked to the pinned
files. Of any other store the files are copied first (queryd/file_cache.py), and each cell sees the copies of its own
query and no others. Either way a file has its key as its path, below the folder that the cell knows as the store.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Protocol

from kernel.artifacts import ArtifactStore
from kernel.artifacts.store import check_key
from kernel.errors import TraceError
from queryd.file_cache import FileCache
from queryd.resolve import ResolvedDataset
from queryd.wanted import WantedFile, lost
from traceapi.types.v1.artifact_pb2 import Artifact
from traceapi.types.v1.errors_pb2 import ErrorReason

_MOST_CHECKED_BYTES = 1 << 30
_FILES_BETWEEN_CHECKS = 256


class PinnedFiles(Protocol):
    """The files of queries. TraceError ARTIFACT_LOST, with the dataset's name, for those that are not as pinned."""

    def provided(
        self, datasets: Sequence[ResolvedDataset], folder: Path, check: Callable[[], None]
    ) -> AbstractContextManager[None]:
        """While the block lasts, a cell whose own folder this is sees the files. `check` raises to end the waiting."""
        ...

    def check_contents(self, datasets: Sequence[ResolvedDataset], complaint: str | None) -> None:
        """Raises where the files explain an engine's complaint. Looked at are those that it names, or, without one, as
        many as can be read in seconds."""
        ...


class FilesInPlace:
    """Of a store on this machine's disk."""

    def __init__(self, store: ArtifactStore) -> None:
        self._store = store

    def provided(
        self, datasets: Sequence[ResolvedDataset], folder: Path, check: Callable[[], None]
    ) -> AbstractContextManager[None]:
        """They are there already."""
        with _named(datasets):
            for index, file in enumerate(_files(datasets)):
                if index % _FILES_BETWEEN_CHECKS == 0:
                    check()
                self._check_size(file)
        return nullcontext()

    def check_contents(self, datasets: Sequence[ResolvedDataset], complaint: str | None) -> None:
        with _named(datasets):
            for file in _files(datasets):
                self._check_size(file)
            for file in _suspects(datasets, complaint):
                stored = self._store.stat(file.key, digest=True)
                if stored is None or stored.sha256 != file.sha256:
                    raise lost(file, "does not have the content that was recorded")

    def _check_size(self, file: WantedFile) -> None:
        stored = self._store.stat(file.key, digest=False)
        if stored is None:
            raise lost(file, "is not in the store")
        if stored.size_bytes != file.size_bytes:
            raise lost(file, "has another size than was recorded")


class CopiedFiles:
    """Of a store elsewhere."""

    def __init__(self, cache: FileCache) -> None:
        self._cache = cache

    @contextmanager
    def provided(self, datasets: Sequence[ResolvedDataset], folder: Path, check: Callable[[], None]) -> Iterator[None]:
        """Copies that are held are linked into the folder; the links go with it."""
        files = list(_files(datasets))
        with ExitStack() as stack:
            with _named(datasets):
                copies = stack.enter_context(self._cache.held(files, check))
            for file in files:
                target = folder / check_key(file.key)
                target.parent.mkdir(parents=True, exist_ok=True)
                _link(copies[file.sha256], target, file)
            yield

    def check_contents(self, datasets: Sequence[ResolvedDataset], complaint: str | None) -> None:
        """They were what was recorded when they came, so only the copies are in doubt: those that are damaged go."""
        if complaint is None:
            for file in _suspects(datasets, complaint):
                if self._cache.drop_damaged(file):
                    raise _damaged(file)


def _link(copy: Path, target: Path, file: WantedFile) -> None:
    """UNAVAILABLE where another query has just found the copy to be damaged."""
    try:
        os.link(copy, target)
    except FileNotFoundError as error:
        raise _damaged(file) from error


def _damaged(file: WantedFile) -> TraceError:
    message = f"this server's copy of {file.key} was damaged and is fetched again: repeat the query"
    return TraceError(ErrorReason.ERROR_REASON_UNAVAILABLE, message)


def _files(datasets: Sequence[ResolvedDataset]) -> Iterator[WantedFile]:
    for dataset in datasets:
        for artifact in dataset.artifacts:
            yield _wanted(artifact)


def _suspects(datasets: Sequence[ResolvedDataset], complaint: str | None) -> Iterator[WantedFile]:
    left = _MOST_CHECKED_BYTES
    for file in _files(datasets):
        if left >= 0 and (complaint is None or file.key in complaint):
            left -= file.size_bytes
            yield file


def _wanted(artifact: Artifact) -> WantedFile:
    return WantedFile(artifact.key, artifact.size_bytes, artifact.sha256)


@contextmanager
def _named(datasets: Sequence[ResolvedDataset]) -> Iterator[None]:
    """A lost file leaves with the name of its dataset."""
    try:
        yield
    except TraceError as error:
        key = error.metadata.get("key", "")
        owners: Mapping[str, str] = {
            artifact.key: dataset.dataset_id for dataset in datasets for artifact in dataset.artifacts
        }
        if error.reason != ErrorReason.ERROR_REASON_ARTIFACT_LOST or key not in owners:
            raise
        message = error.message.replace(f"the file {key}", f'the file {key} of dataset "{owners[key]}"', 1)
        metadata = {"dataset_id": owners[key], "key": key}
        raise TraceError(error.reason, message, metadata=metadata) from error
