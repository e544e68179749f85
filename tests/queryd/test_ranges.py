"""The bridge to large files: what a cell may ask for, what it gets, and that nothing keeps its end waiting."""

import random
import socket
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from kernel.artifacts import LocalArtifactStore, RangedObject
from kernel.artifacts.store import store_unavailable
from kernel.errors import TraceError
from queryd.engine.frames import ProtocolError
from queryd.engine.messages import RangedFile
from queryd.engine.pipes import Wake
from queryd.engine.ranges import AT_ONCE, MAX_RANGE_BYTES, Asked, RangeAsker, RangesEnd
from queryd.file_cache import FileCache
from queryd.files import FilesElsewhere
from queryd.ranges import RangeService, RangeSource
from queryd.resolve import ResolvedDataset
from queryd.wanted import WantedFile
from tests.queryd.harness import reason
from traceapi.control.v1.dataset_service_pb2 import PinnedDataset
from traceapi.types.v1.artifact_pb2 import Artifact

_SECONDS = 30.0
_SIZE = 3 * MAX_RANGE_BYTES + 17


class HeldStore(LocalArtifactStore):
    """It answers a range once the test lets it, counts them, and is away as often as it is told."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.open_for_reading = threading.Event()
        self.open_for_reading.set()
        self.begun = threading.Semaphore(0)
        self.reads: list[tuple[int, int]] = []
        self.failures = 0

    def ranged(self, key: str) -> RangedObject:
        found = super().ranged(key)

        def read(position: int, length: int) -> bytes:
            self.reads.append((position, length))
            self.begun.release()
            assert self.open_for_reading.wait(_SECONDS)
            if self.failures:
                self.failures -= 1
                raise store_unavailable("the store", "it is away")
            return found.read(position, length)

        return RangedObject(found.size_bytes, found.sha256, read)


class Bridge:
    """A file of a store, and a cell's end of the socket at which it is asked for."""

    def __init__(self, root: Path) -> None:
        self.store = HeldStore(root)
        self.content = random.Random(1).randbytes(_SIZE)
        stored = self.store.put_bytes("data/large", self.content)
        self.file = WantedFile(stored.key, stored.size_bytes, stored.sha256)
        self.source = RangeSource(self.store)
        self.wake = Wake()
        self.failed = threading.Event()
        self.failures: list[Exception] = []
        mine, theirs = socket.socketpair()
        self.cell = theirs
        self._end = RangesEnd(mine.detach(), self.wake)
        service = RangeService(self.source, [self.file], self._fail)
        self.thread = threading.Thread(target=service.serve, args=(self._end,), daemon=True)
        self.thread.start()

    def ask(self, *requests: tuple[int, int, int]) -> None:
        self.cell.sendall(b"".join(struct.pack(">IQI", *request) for request in requests))

    def close(self) -> None:
        self.wake()
        self.store.open_for_reading.set()
        self.thread.join(_SECONDS)
        self._end.close()
        self.wake.close()
        self.cell.close()
        self.source.close()

    def _fail(self, error: Exception) -> None:
        self.failures.append(error)
        self.failed.set()


@pytest.fixture
def bridge(tmp_path: Path) -> Iterator[Bridge]:
    made = Bridge(tmp_path / "artifacts")
    yield made
    made.close()


def test_many_threads_of_a_cell_each_get_what_they_ask_for(bridge: Bridge) -> None:
    asker = RangeAsker(bridge.cell.fileno())

    def read(seed: int) -> None:
        choices = random.Random(seed)
        for _ in range(20):
            start = choices.randrange(_SIZE)
            length = choices.randrange(1, _SIZE - start + 1)
            assert asker.read(0, start, length) == bridge.content[start : start + length]

    with ThreadPoolExecutor(4) as threads:
        for one in [threads.submit(read, seed) for seed in range(4)]:
            one.result(_SECONDS)
    assert max(length for _, length in bridge.store.reads) <= MAX_RANGE_BYTES


def test_the_parts_of_a_large_range_are_fetched_side_by_side(bridge: Bridge) -> None:
    bridge.store.open_for_reading.clear()
    with ThreadPoolExecutor(1) as threads:
        reading = threads.submit(RangeAsker(bridge.cell.fileno()).read, 0, 0, _SIZE)
        for _ in range(4):
            assert bridge.store.begun.acquire(timeout=_SECONDS)
        bridge.store.open_for_reading.set()
        assert reading.result(_SECONDS) == bridge.content


@pytest.mark.parametrize(
    "request_",
    [
        (1, 0, 1),
        (0xFFFFFFFF, 0, 1),
        (0, _SIZE, 1),
        (0, _SIZE - 1, 2),
        (0, 0xFFFFFFFFFFFFFFFF, 1),
        (0, 0, 0),
        (0, 0, MAX_RANGE_BYTES + 1),
        (0, 0, 0xFFFFFFFF),
    ],
)
def test_what_is_not_of_its_files_no_cell_gets(bridge: Bridge, request_: tuple[int, int, int]) -> None:
    bridge.ask(request_)
    assert bridge.failed.wait(_SECONDS)
    assert isinstance(bridge.failures[0], ProtocolError)
    assert bridge.store.reads == []
    bridge.thread.join(_SECONDS)
    assert not bridge.thread.is_alive()


def test_of_a_cell_that_never_reads_little_is_fetched_and_nothing_waits_for_it(bridge: Bridge) -> None:
    bridge.ask(*[(0, 0, MAX_RANGE_BYTES)] * 100)
    for _ in range(AT_ONCE):
        assert bridge.store.begun.acquire(timeout=_SECONDS)
    bridge.wake()
    bridge.thread.join(_SECONDS)
    assert not bridge.thread.is_alive()
    # One answer may be on its way into the socket, and have made room for one more.
    assert len(bridge.store.reads) <= AT_ONCE + 1
    assert bridge.failures == []


def test_a_fetch_that_hangs_keeps_no_thread_of_a_cell_that_has_ended(bridge: Bridge) -> None:
    bridge.store.open_for_reading.clear()
    bridge.ask((0, 0, 10))
    assert bridge.store.begun.acquire(timeout=_SECONDS)
    bridge.wake()
    bridge.thread.join(_SECONDS / 2)
    assert not bridge.thread.is_alive()


def test_a_cell_that_ends_by_itself_ends_its_thread(bridge: Bridge) -> None:
    bridge.ask((0, 0, 10))
    assert bridge.cell.recv(10, socket.MSG_WAITALL) == bridge.content[:10]
    bridge.cell.shutdown(socket.SHUT_RDWR)
    bridge.thread.join(_SECONDS)
    assert not bridge.thread.is_alive()
    assert bridge.failures == []


def test_a_store_that_is_away_is_asked_again_but_not_for_ever(bridge: Bridge) -> None:
    bridge.store.failures = 2
    bridge.ask((0, 5, 10))
    assert bridge.cell.recv(10, socket.MSG_WAITALL) == bridge.content[5:15]
    bridge.store.failures = 100
    bridge.ask((0, 5, 10))
    assert bridge.failed.wait(_SECONDS)
    error = bridge.failures[0]
    assert isinstance(error, TraceError)
    assert reason(error) == "UNAVAILABLE"


def test_once_queryd_ends_nothing_is_lost_but_to_be_asked_again(bridge: Bridge) -> None:
    bridge.source.close()
    bridge.ask((0, 5, 10))
    assert bridge.failed.wait(_SECONDS)
    error = bridge.failures[0]
    assert isinstance(error, TraceError)
    assert reason(error) == "UNAVAILABLE"


def _outdated(bridge: Bridge) -> WantedFile:
    return WantedFile(bridge.file.key, _SIZE - 1, bridge.file.sha256)


def _missing(bridge: Bridge) -> WantedFile:
    return WantedFile("data/none", _SIZE, bridge.file.sha256)


@pytest.mark.parametrize(("made", "words"), [(_outdated, "another size"), (_missing, "is not in the store")])
def test_a_file_that_is_not_as_recorded_is_lost(
    bridge: Bridge, made: Callable[[Bridge], WantedFile], words: str
) -> None:
    with pytest.raises(TraceError, match=words) as caught:
        bridge.source.begin(made(bridge), Asked(0, 0, 1), lambda: True).result(_SECONDS)
    assert reason(caught.value) == "ARTIFACT_LOST"


class AskingCell:
    """A cell that asks for what is not its own, instead of reading its file."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def serve_ranges(self, files: Sequence[RangedFile], serve: Callable[[RangesEnd], None]) -> None:
        self.asked += [file.key for file in files]
        mine, theirs = socket.socketpair()
        wake = Wake()
        end = RangesEnd(mine.detach(), wake)
        with theirs:
            theirs.sendall(struct.pack(">IQI", 1, 0, 1))
            serve(end)
        end.close()
        wake.close()


def test_a_cell_that_asks_for_what_it_may_not_have_ends_its_query(bridge: Bridge, tmp_path: Path) -> None:
    files = FilesElsewhere(FileCache(bridge.store, tmp_path / "copies", 1_000), bridge.source, 1_000)
    artifact = Artifact(key=bridge.file.key, size_bytes=_SIZE, sha256=bridge.file.sha256)
    datasets, cell, stopped = [ResolvedDataset(PinnedDataset(), (), (artifact,))], AskingCell(), list[TraceError]()
    identity = SimpleNamespace(query_id="q")
    query = cast("Any", SimpleNamespace(check=lambda: None, stop=stopped.append, identity=identity))
    with files.provided(datasets, cast("Any", cell), query):
        assert cell.asked == [artifact.key]
    assert [reason(error) for error in stopped] == ["INTERNAL"]
    assert bridge.store.reads == []


def test_a_copy_that_was_just_dropped_is_no_defect(tmp_path: Path) -> None:
    """Another query has found it to be damaged between its being taken and its being linked."""
    store = LocalArtifactStore(tmp_path / "artifacts")
    stored = store.put_bytes("data/small", b"content")
    cache = FileCache(store, tmp_path / "copies", 1_000)
    files = FilesElsewhere(cache, RangeSource(store), 1_000)
    artifact = Artifact(key=stored.key, size_bytes=stored.size_bytes, sha256=stored.sha256)
    datasets = [ResolvedDataset(PinnedDataset(), (), (artifact,))]
    query = cast("Any", SimpleNamespace(check=lambda: None))
    with files.provided(datasets, cast("Any", SimpleNamespace(files=tmp_path / "one")), query):
        (copy,) = (path for path in (tmp_path / "copies" / "files").rglob("*") if path.is_file())
        copy.unlink()
        with (
            pytest.raises(TraceError, match="repeat the query") as caught,
            files.provided(datasets, cast("Any", SimpleNamespace(files=tmp_path / "two")), query),
        ):
            pass
    assert reason(caught.value) == "UNAVAILABLE"
    assert [path.name for path in (tmp_path / "one" / "data").iterdir()] == ["small"]
    cache.close()
