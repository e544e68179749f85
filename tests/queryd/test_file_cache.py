"""Copies of files: never more than the limit, never other bytes, never taken from who reads them."""

import hashlib
import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

import pytest

from kernel.artifacts import LocalArtifactStore
from kernel.errors import TraceError
from queryd.file_cache import FileCache
from queryd.wanted import WantedFile
from tests.queryd.harness import reason
from traceapi.types.v1.errors_pb2 import ErrorReason

_SECONDS = 30.0


class GatedStore(LocalArtifactStore):
    """A store that opens an object once the test lets it; it remembers what was asked for."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.asked: list[str] = []
        self.shut: set[str] = set()
        self.changed = threading.Condition()

    def add(self, name: str, size: int = 10) -> WantedFile:
        content = (name.encode() * size)[:size]
        stored = self.put_bytes(f"data/{name}", content)
        return WantedFile(stored.key, stored.size_bytes, stored.sha256)

    def open(self, key: str) -> BinaryIO:
        with self.changed:
            self.asked.append(key)
            self.changed.notify_all()
            assert self.changed.wait_for(lambda: key not in self.shut, _SECONDS)
        return super().open(key)

    def release(self, file: WantedFile) -> None:
        with self.changed:
            self.shut.discard(file.key)
            self.changed.notify_all()

    def wait_until_asked(self, file: WantedFile) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: file.key in self.asked, _SECONDS)


@pytest.fixture
def store(tmp_path: Path) -> GatedStore:
    return GatedStore(tmp_path / "artifacts")


@pytest.fixture
def cache(store: GatedStore, tmp_path: Path) -> Iterator[FileCache]:
    """Room for three files of 10 bytes."""
    made = FileCache(store, tmp_path / "copies", 30)
    yield made
    for key in list(store.shut):
        store.release(WantedFile(key, 0, b""))
    made.close()


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as made:
        yield made


def wanted() -> None:
    """A wish that stands."""


class GivenUpError(Exception):
    pass


class Wish:
    """A wish that a test takes back, and of which it knows when it waits."""

    def __init__(self) -> None:
        self.looked = threading.Event()
        self.given_up = threading.Event()

    def __call__(self) -> None:
        self.looked.set()
        if self.given_up.is_set():
            raise GivenUpError


def on_disk(tmp_path: Path) -> dict[str, int]:
    """Sizes by name; whole copies only."""
    return {path.name: path.stat().st_size for path in (tmp_path / "copies" / "files").rglob("*") if path.is_file()}


def read(cache: FileCache, *files: WantedFile, check: Callable[[], None] = wanted) -> None:
    """Holds files and looks at every byte of them."""
    with cache.held(files, check) as copies:
        for file in files:
            assert hashlib.sha256(copies[file.sha256].read_bytes()).digest() == file.sha256


def test_a_file_is_fetched_once_and_kept(cache: FileCache, store: GatedStore, tmp_path: Path) -> None:
    a = store.add("a")
    same = WantedFile("data/same", a.size_bytes, a.sha256)
    with cache.held([same, a, a], wanted) as copies:
        path = copies[a.sha256]
        assert (path.read_bytes(), path.stat().st_mode & 0o777) == (b"a" * 10, 0o444)
    read(cache, a)
    assert store.asked == [a.key]
    assert on_disk(tmp_path) == {a.sha256.hex(): 10}


def test_the_longest_unused_makes_room(cache: FileCache, store: GatedStore, tmp_path: Path) -> None:
    a, b, c, d = (store.add(name) for name in "abcd")
    for file in (a, b, c, a, d):
        read(cache, file)
    assert set(on_disk(tmp_path)) == {file.sha256.hex() for file in (a, c, d)}
    read(cache, a, c, d)
    assert store.asked == [file.key for file in (a, b, c, d)]


def test_a_held_file_is_never_taken_and_room_is_waited_for(
    cache: FileCache, store: GatedStore, threads: ThreadPoolExecutor, tmp_path: Path
) -> None:
    a, b, large = store.add("a"), store.add("b"), store.add("large", 20)
    wish = Wish()
    with cache.held([a, b], wanted) as copies:
        waiting = threads.submit(read, cache, large, check=wish)
        assert wish.looked.wait(_SECONDS)
        assert (copies[a.sha256].read_bytes(), copies[b.sha256].read_bytes()) == (b"a" * 10, b"b" * 10)
        assert large.key not in store.asked
    waiting.result(_SECONDS)
    assert sum(on_disk(tmp_path).values()) == 30


def test_a_large_wish_is_not_starved_by_small_ones(
    cache: FileCache, store: GatedStore, threads: ThreadPoolExecutor
) -> None:
    a, b, large = store.add("a"), store.add("b"), store.add("large", 30)
    wish, later = Wish(), Wish()
    with cache.held([a], wanted):
        waiting = threads.submit(read, cache, large, check=wish)
        assert wish.looked.wait(_SECONDS)
        small = threads.submit(read, cache, b, check=later)
        assert later.looked.wait(_SECONDS)
        assert b.key not in store.asked
    waiting.result(_SECONDS)
    small.result(_SECONDS)
    assert store.asked == [a.key, large.key, b.key]


def test_what_is_here_waits_for_nobody(cache: FileCache, store: GatedStore, threads: ThreadPoolExecutor) -> None:
    a, large = store.add("a"), store.add("large", 30)
    wish = Wish()
    with cache.held([a], wanted):
        waiting = threads.submit(read, cache, large, check=wish)
        assert wish.looked.wait(_SECONDS)
        threads.submit(read, cache, a).result(_SECONDS)
        assert not waiting.done()
    waiting.result(_SECONDS)
    assert store.asked == [a.key, large.key]


def test_what_can_never_fit_is_refused_at_once(cache: FileCache, store: GatedStore) -> None:
    files = [store.add(name, 16) for name in ("a", "b")]
    with pytest.raises(TraceError) as caught, cache.held(files, wanted):
        pass
    assert (reason(caught.value), caught.value.metadata) == ("QUERY_LIMIT", {"limit": "cache"})
    assert store.asked == []


def test_two_wishes_for_one_file_fetch_it_once(
    cache: FileCache, store: GatedStore, threads: ThreadPoolExecutor
) -> None:
    a = store.add("a")
    store.shut.add(a.key)
    wishes = [Wish() for _ in range(4)]
    reading = [threads.submit(read, cache, a, check=wish) for wish in wishes]
    assert all(wish.looked.wait(_SECONDS) for wish in wishes)
    store.release(a)
    for one in reading:
        one.result(_SECONDS)
    assert store.asked == [a.key]


@pytest.mark.parametrize(
    ("spoiled", "words"),
    [(b"other bytes"[:10], "content"), (b"short", "size"), (b"longer than it was", "size"), (None, "not in the store")],
)
def test_other_bytes_are_never_given(
    cache: FileCache, store: GatedStore, tmp_path: Path, spoiled: bytes | None, words: str
) -> None:
    a, b = store.add("a"), store.add("b")
    path = tmp_path / "artifacts" / a.key
    path.unlink()
    if spoiled is not None:
        path.write_bytes(spoiled)
    with pytest.raises(TraceError, match=words) as caught, cache.held([b, a], wanted):
        pass
    assert (reason(caught.value), caught.value.metadata) == ("ARTIFACT_LOST", {"key": a.key})
    assert set(on_disk(tmp_path)) <= {b.sha256.hex()}
    path.unlink(missing_ok=True)
    store.add("a")
    read(cache, a, b)


def test_a_wish_that_is_given_up_leaves_no_trace(
    cache: FileCache, store: GatedStore, threads: ThreadPoolExecutor
) -> None:
    """Whether it waits for its files or for room: what it held is free, what was not begun is not fetched."""
    a, b = store.add("a"), store.add("b", 20)
    store.shut.add(a.key)
    fetching, waiting = Wish(), Wish()
    given_up: list[Future[None]] = [threads.submit(read, cache, a, check=fetching)]
    store.wait_until_asked(a)
    given_up.append(threads.submit(read, cache, store.add("c", 25), check=waiting))
    assert waiting.looked.wait(_SECONDS)
    for wish, one in zip((fetching, waiting), given_up, strict=True):
        wish.given_up.set()
        with pytest.raises(GivenUpError):
            one.result(_SECONDS)
    store.release(a)
    read(cache, a, b)
    assert store.asked == [a.key, b.key]


def test_fetches_that_nobody_waits_for_any_more_are_not_begun(
    store: GatedStore, threads: ThreadPoolExecutor, tmp_path: Path
) -> None:
    cache = FileCache(store, tmp_path / "copies", 1_000)
    files = [store.add(f"{number:02}") for number in range(40)]
    store.shut.update(file.key for file in files)
    wish = Wish()
    reading = threads.submit(read, cache, *files, check=wish)
    for file in files[:16]:
        store.wait_until_asked(file)
    wish.given_up.set()
    with pytest.raises(GivenUpError):
        reading.result(_SECONDS)
    for file in files:
        store.release(file)
    read(cache, files[-1])
    cache.close()
    assert sorted(store.asked) == [file.key for file in (*files[:16], files[-1])]


def test_a_damaged_copy_is_dropped_and_fetched_again(cache: FileCache, store: GatedStore) -> None:
    a = store.add("a")
    with cache.held([a], wanted) as copies:
        assert not cache.drop_damaged(a)
        copies[a.sha256].chmod(0o644)
        copies[a.sha256].write_bytes(b"x" * 10)
        assert cache.drop_damaged(a)
    read(cache, a)
    assert store.asked == [a.key, a.key]


def test_a_disk_without_room_is_told(cache: FileCache, store: GatedStore, tmp_path: Path) -> None:
    a = store.add("a")
    (tmp_path / "copies" / "unfinished").rmdir()
    with pytest.raises(TraceError, match="cannot keep a copy") as caught, cache.held([a], wanted):
        pass
    assert reason(caught.value) == "UNAVAILABLE"


def test_many_readers_at_once_find_what_they_want_within_the_limit(store: GatedStore, tmp_path: Path) -> None:
    """Every choice is of a seed. The limit is looked at while everybody reads, between two changes of what there is."""
    cache = FileCache(store, tmp_path / "copies", 400)
    files = [store.add(f"{number:02}", 10 + number) for number in range(60)]

    def reader(seed: int) -> None:
        choices = random.Random(seed)
        for _ in range(60):
            chosen = choices.sample(files, choices.randrange(1, 7))
            with cache.held(chosen, wanted) as copies:
                with cache._changed:
                    assert sum(on_disk(tmp_path).values()) <= 400
                assert {hashlib.sha256(path.read_bytes()).digest() for path in copies.values()} == set(copies)

    with ThreadPoolExecutor(8) as threads:
        for one in [threads.submit(reader, seed) for seed in range(8)]:
            one.result(_SECONDS * 2)
    cache.close()
    assert len(store.asked) > len(files)


def test_files_that_had_to_come_when_it_is_closed_are_not_lost(
    store: GatedStore, threads: ThreadPoolExecutor, tmp_path: Path
) -> None:
    """One that is under way, those that have not begun, and one that is wanted later."""
    cache = FileCache(store, tmp_path / "copies", 1_000)
    files = [store.add(f"{number:02}") for number in range(40)]
    store.shut.update(file.key for file in files)
    wish = Wish()
    waiting = [threads.submit(read, cache, *files[:16])]
    for file in files[:16]:
        store.wait_until_asked(file)
    waiting.append(threads.submit(read, cache, *files[16:], check=wish))
    assert wish.looked.wait(_SECONDS)
    closing = threads.submit(cache.close)
    assert cache._closing.wait(_SECONDS)
    for file in files:
        store.release(file)
    closing.result(_SECONDS)
    waiting.append(threads.submit(read, cache, store.add("later")))
    errors = [one.exception(_SECONDS) for one in waiting]
    assert [reason(error) for error in errors if isinstance(error, TraceError)] == ["UNAVAILABLE"] * 3


def test_closing_leaves_a_fetch_that_hangs_behind(store: GatedStore, tmp_path: Path) -> None:
    """A store that is away may keep it waiting for minutes."""
    cache = FileCache(store, tmp_path / "copies", 30)
    file, gone = store.add("a"), threading.Event()
    store.shut.add(file.key)

    def ask() -> None:
        with pytest.raises(TraceError), cache.held([file], check):
            pass

    def check() -> None:
        if gone.is_set():
            raise TraceError(ErrorReason.ERROR_REASON_QUERY_CANCELED, "nobody waits for it")

    asking, closing = threading.Thread(target=ask), threading.Thread(target=cache.close)
    asking.start()
    store.wait_until_asked(file)
    gone.set()
    asking.join(_SECONDS)
    closing.start()
    closing.join(_SECONDS / 2)
    closed = not closing.is_alive()
    store.release(file)
    closing.join(_SECONDS)
    assert closed
