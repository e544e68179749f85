"""The artifact store on a disk: written once, whole, and never outside of its folder."""

import hashlib
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from kernel.artifacts import ArtifactConflict, ArtifactMissing, LocalArtifactStore, StoredObject, open_store
from kernel.errors import TraceError
from traceapi.types.v1 import errors_pb2

KEY = "data/0190b7a1-0000-7000-8000-000000000001/task-1-0.parquet"


@pytest.fixture
def store(tmp_path: Path) -> LocalArtifactStore:
    return LocalArtifactStore(tmp_path / "artifacts")


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_what_is_put_is_there(store: LocalArtifactStore, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"rows" * 1_000_000)
    stored = store.put(KEY, source)
    assert stored == StoredObject(KEY, 4_000_000, hashlib.sha256(b"rows" * 1_000_000).digest())
    with store.open(KEY) as content:
        assert content.read() == source.read_bytes()
    assert store.stat(KEY, digest=True) == stored
    assert store.stat(KEY, digest=False) == StoredObject(KEY, 4_000_000, b"")
    path = store.local_path(KEY)
    assert path is not None
    assert path.read_bytes() == source.read_bytes()


def test_an_object_does_not_change_with_its_source(store: LocalArtifactStore, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"before")
    stored = store.put(KEY, source)
    source.write_bytes(b"after!")
    assert store.stat(KEY, digest=True) == stored


def test_objects_are_read_only_and_nothing_unfinished_is_left(store: LocalArtifactStore, tmp_path: Path) -> None:
    store.put_bytes(KEY, b"x")
    assert files(tmp_path / "artifacts") == [KEY]
    assert stat.S_IMODE((tmp_path / "artifacts" / KEY).stat().st_mode) == 0o444
    assert (tmp_path / "artifacts" / KEY).stat().st_nlink == 1


def test_the_same_content_again_is_a_repeat(store: LocalArtifactStore, tmp_path: Path) -> None:
    stored = store.put_bytes(KEY, b"x")
    before = (tmp_path / "artifacts" / KEY).stat()
    assert store.put_bytes(KEY, b"x") == stored
    assert (tmp_path / "artifacts" / KEY).stat().st_ino == before.st_ino


@pytest.mark.parametrize("content", [b"other", b"y", b""])
def test_other_content_is_a_conflict_and_changes_nothing(
    store: LocalArtifactStore, content: bytes, tmp_path: Path
) -> None:
    stored = store.put_bytes(KEY, b"x")
    with pytest.raises(ArtifactConflict) as caught:
        store.put_bytes(KEY, content)
    assert caught.value.reason == errors_pb2.ERROR_REASON_ARTIFACT_CONFLICT
    assert store.stat(KEY, digest=True) == stored
    assert files(tmp_path / "artifacts") == [KEY]


def test_of_many_writers_at_once_one_wins_and_the_others_hear_of_it(store: LocalArtifactStore) -> None:
    def write(number: int) -> Any:
        try:
            return store.put_bytes(KEY, b"%d" % (number % 4))
        except ArtifactConflict:
            return None

    with ThreadPoolExecutor(8) as threads:
        results = list(threads.map(write, range(64)))
    winner = store.stat(KEY, digest=True)
    assert winner is not None
    assert {result for result in results if result is not None} == {winner}
    assert sum(result is not None for result in results) == 16


def test_what_is_not_there_is_missing(store: LocalArtifactStore) -> None:
    assert store.stat(KEY, digest=True) is None
    with pytest.raises(ArtifactMissing):
        store.open(KEY)
    store.put_bytes("a", b"")
    assert store.stat("a/b", digest=False) is None
    store.put_bytes("c/d", b"")
    assert store.stat("c", digest=False) is None


@pytest.mark.parametrize(
    "key",
    [
        "",
        "/etc/passwd",
        "../x",
        "a/../../x",
        "a/..",
        "a/./b",
        ".",
        "a//b",
        "a/",
        "ä",
        "a b",
        "a\x00b",
        "a\nb",
        "~x",
        "x" * 513,
    ],
)
def test_a_key_that_could_leave_the_store_is_refused(store: LocalArtifactStore, key: str, tmp_path: Path) -> None:
    for use in (
        lambda: store.put_bytes(key, b"x"),
        lambda: store.stat(key, digest=False),
        lambda: store.open(key),
        lambda: store.local_path(key),
    ):
        with pytest.raises(TraceError) as caught:
            use()
        assert caught.value.reason == errors_pb2.ERROR_REASON_INVALID_REQUEST
    assert files(tmp_path) == []


def test_links_are_not_followed(store: LocalArtifactStore, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    store.put_bytes("data/a", b"x")
    (tmp_path / "artifacts/data/link").symlink_to(secret)
    with pytest.raises(OSError, match="symbolic"):
        store.open("data/link")
    (tmp_path / "source").symlink_to(secret)
    with pytest.raises(OSError, match="symbolic"):
        store.put("data/b", tmp_path / "source")
    assert store.stat("data/b", digest=False) is None


def test_a_folder_is_no_source(store: LocalArtifactStore, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not a regular file"):
        store.put(KEY, tmp_path)


def test_objects_are_listed_by_the_beginning_of_their_key(store: LocalArtifactStore, tmp_path: Path) -> None:
    for key in ("data/b/1", "data/a/2", "data/a/1", "data/a.b", "bundles/x.tar"):
        store.put_bytes(key, key.encode())
    (tmp_path / "artifacts/~unfinished/crashed").write_bytes(b"half")
    assert [found.key for found in store.list("")] == ["bundles/x.tar", "data/a.b", "data/a/1", "data/a/2", "data/b/1"]
    assert [found.key for found in store.list("data/a")] == ["data/a.b", "data/a/1", "data/a/2"]
    assert list(store.list("data/a/")) == [StoredObject("data/a/1", 8, b""), StoredObject("data/a/2", 8, b"")]
    assert list(store.list("nothing/")) == []
    assert list(store.list("data/a/1/")) == []


@pytest.mark.parametrize("prefix", ["/", "../", "data/../", "~"])
def test_a_prefix_that_could_leave_the_store_is_refused(store: LocalArtifactStore, prefix: str) -> None:
    with pytest.raises(TraceError):
        list(store.list(prefix))


def test_a_write_is_durable_before_it_is_reported(
    store: LocalArtifactStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is flushed before it is linked to its key, and the folder that holds the link after."""
    steps: list[str] = []
    fsync, link = os.fsync, os.link

    def recorded_fsync(descriptor: int) -> None:
        kind = "folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file"
        steps.append(
            f"{kind} {Path(f'/proc/self/fd/{descriptor}').readlink().name if kind == 'folder' else ''}".strip()
        )
        fsync(descriptor)

    def recorded_link(source: Path, target: Path) -> None:
        steps.append("link")
        link(source, target)

    monkeypatch.setattr(os, "fsync", recorded_fsync)
    monkeypatch.setattr(os, "link", recorded_link)
    store.put_bytes("data/v/a", b"x")
    at = steps.index("link")
    assert "file" in steps[:at]
    assert {"folder data", "folder artifacts"} <= set(steps[:at])
    assert steps[at + 1 :] == ["folder v"]
    steps.clear()
    store.put_bytes("data/v/a", b"x")
    assert steps == ["file", "link", "folder v"]


def test_a_url_names_a_store(tmp_path: Path) -> None:
    store = open_store(f"file://{tmp_path}/with%20space")
    store.put_bytes("a", b"x")
    assert (tmp_path / "with space" / "a").read_bytes() == b"x"
    assert (open_store(f"file://localhost{tmp_path}/x").local_path("a")) == tmp_path / "x" / "a"


@pytest.mark.parametrize(
    "url", ["", "s3://bucket/x", "/absolute/path", "file://relative", "file://host/x", "file:///x?y", "file:x"]
)
def test_another_url_is_refused_with_a_remedy(url: str) -> None:
    with pytest.raises(ValueError, match="write file:///absolute/folder"):
        open_store(url)
