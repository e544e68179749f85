"""How a cell comes to see the files that its query has pinned.

A store on this machine's disk is read in place: every cell sees all of it, and the engine is locked to the pinned
files. Of any other store small files are copied first (queryd/file_cache.py), and each cell sees the copies of its own
query and no others. These files have their keys as their paths, below the folder that the cell knows as the store.
Large ones it does not see: it asks for the ranges of them that it needs (queryd/ranges.py).
"""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Protocol

from kernel.artifacts import ArtifactStore
from kernel.artifacts.store import check_key
from kernel.errors import TraceError
from kernel.telemetry import get_logger
from queryd.engine.frames import ProtocolError
from queryd.engine.messages import RangedFile
from queryd.engine.process import CellProcess
from queryd.file_cache import FileCache
from queryd.ranges import RangeService, RangeSource
from queryd.resolve import ResolvedDataset
from queryd.running import RunningQuery
from queryd.wanted import WantedFile, lost
from traceapi.types.v1.artifact_pb2 import Artifact
from traceapi.types.v1.errors_pb2 import ErrorReason

_log = get_logger("queryd.files")
_MOST_CHECKED_BYTES = 1 << 30
_FILES_BETWEEN_CHECKS = 256


class PinnedFiles(Protocol):
    """The files of queries. TraceError ARTIFACT_LOST, with the dataset's name, for those that are not as pinned."""

    def provided(
        self, datasets: Sequence[ResolvedDataset], cell: CellProcess, query: RunningQuery
    ) -> AbstractContextManager[None]:
        """While the block lasts, the cell can read the files of the query, which stops if it cannot any more. What
        ends the query ends the waiting."""
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
        self, datasets: Sequence[ResolvedDataset], cell: CellProcess, query: RunningQuery
    ) -> AbstractContextManager[None]:
        """They are there already."""
        with _named(datasets):
            for index, file in enumerate(_files(datasets)):
                if index % _FILES_BETWEEN_CHECKS == 0:
                    query.check()
                self._check_size(file)
        return nullcontext()

    def check_contents(self, datasets: Sequence[ResolvedDataset], complaint: str | None) -> None:
        with _named(datasets):
            for file in _files(datasets):
                self._check_size(file)
            for file in _suspects(_files(datasets), complaint):
                stored = self._store.stat(file.key, digest=True)
                if stored is None or stored.sha256 != file.sha256:
                    raise lost(file, "does not have the content that was recorded")

    def _check_size(self, file: WantedFile) -> None:
        stored = self._store.stat(file.key, digest=False)
        if stored is None:
            raise lost(file, "is not in the store")
        if stored.size_bytes != file.size_bytes:
            raise lost(file, "has another size than was recorded")


class FilesElsewhere:
    """Of a store elsewhere. Files of at most `copied_bytes` are copied, if all of a query's have room together."""

    def __init__(self, cache: FileCache, ranges: RangeSource, copied_bytes: int) -> None:
        self._cache = cache
        self._ranges = ranges
        self._copied_bytes = copied_bytes

    @contextmanager
    def provided(self, datasets: Sequence[ResolvedDataset], cell: CellProcess, query: RunningQuery) -> Iterator[None]:
        """Copies that are held are linked into the cell's folder; the links go with it."""
        copied, ranged = self._divided(datasets)
        with ExitStack() as stack:
            with _named(datasets):
                copies = stack.enter_context(self._cache.held(copied, query.check))
            for file in copied:
                target = cell.files / check_key(file.key)
                target.parent.mkdir(parents=True, exist_ok=True)
                _link(copies[file.sha256], target, file)
            if ranged:
                service = RangeService(self._ranges, ranged, partial(_stop, query, datasets))
                cell.serve_ranges([RangedFile(file.key, file.size_bytes) for file in ranged], service.serve)
            yield

    def check_contents(self, datasets: Sequence[ResolvedDataset], complaint: str | None) -> None:
        """Copies were what was recorded when they came, and those that are damaged since go. Of files that are read by
        ranges the store is asked what it has."""
        copied, ranged = self._divided(datasets)
        if complaint is None:
            for file in _suspects(copied, complaint):
                if self._cache.drop_damaged(file):
                    raise _damaged(file)
        with _named(datasets):
            for file in _suspects(ranged, complaint):
                self._ranges.check(file)

    def _divided(self, datasets: Sequence[ResolvedDataset]) -> tuple[list[WantedFile], list[WantedFile]]:
        """Files that are copied, and those that are read by ranges, each once."""
        files = list(dict.fromkeys(_files(datasets)))
        copied = [file for file in files if file.size_bytes <= self._copied_bytes]
        if not self._cache.could_hold(copied):
            copied = []
        kept = frozenset(copied)
        return copied, [file for file in files if file not in kept]


def _stop(query: RunningQuery, datasets: Sequence[ResolvedDataset], error: TraceError | ProtocolError) -> None:
    """Ends a query whose files cannot be read any more."""
    if isinstance(error, ProtocolError):
        _log.warning("a cell asked for what it may not have", query_id=query.identity.query_id, error=str(error))
        query.stop(
            TraceError(
                ErrorReason.ERROR_REASON_INTERNAL, f"the engine's process asked for what it may not have: {error}"
            )
        )
        return
    try:
        with _named(datasets):
            raise error
    except TraceError as named:
        query.stop(named)


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


def _suspects(files: Iterable[WantedFile], complaint: str | None) -> Iterator[WantedFile]:
    left = _MOST_CHECKED_BYTES
    for file in files:
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
