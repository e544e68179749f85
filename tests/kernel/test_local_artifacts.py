"""The artifact store on a disk, beyond what every store keeps: its files, its folders, and when they are durable."""

import os
import stat
from pathlib import Path

import pytest

from kernel.artifacts import ArtifactConflict, LocalArtifactStore, open_store
from kernel.errors import TraceError
from traceapi.types.v1 import errors_pb2

KEY = "data/0190b7a1-0000-7000-8000-000000000001/task-1-0.parquet"


@pytest.fixture
def store(tmp_path: Path) -> LocalArtifactStore:
    return LocalArtifactStore(tmp_path / "artifacts")


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_objects_are_read_only_files_and_nothing_unfinished_is_left(store: LocalArtifactStore, tmp_path: Path) -> None:
    store.put_bytes(KEY, b"x")
    with pytest.raises(ArtifactConflict):
        store.put_bytes(KEY, b"y")
    assert files(tmp_path / "artifacts") == [KEY]
    path = store.local_path(KEY)
    assert path == tmp_path / "artifacts" / KEY
    assert path.read_bytes() == b"x"
    assert stat.S_IMODE(path.stat().st_mode) == 0o444
    assert path.stat().st_nlink == 1


def test_a_repeat_leaves_the_file_in_its_place(store: LocalArtifactStore, tmp_path: Path) -> None:
    store.put_bytes(KEY, b"x")
    before = (tmp_path / "artifacts" / KEY).stat()
    store.put_bytes(KEY, b"x")
    assert (tmp_path / "artifacts" / KEY).stat().st_ino == before.st_ino


def test_a_key_that_is_refused_makes_no_file(store: LocalArtifactStore, tmp_path: Path) -> None:
    for key in ("../x", "a/../../x", str(tmp_path / "x")):
        with pytest.raises(TraceError):
            store.put_bytes(key, b"x")
    assert files(tmp_path) == []


def test_links_in_the_store_are_not_followed(store: LocalArtifactStore, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    store.put_bytes("data/a", b"x")
    (tmp_path / "artifacts/data/link").symlink_to(tmp_path / "secret")
    with pytest.raises(OSError, match="symbolic"):
        store.open("data/link")


def test_what_a_crash_left_is_not_listed(store: LocalArtifactStore, tmp_path: Path) -> None:
    store.put_bytes("data/a", b"x")
    (tmp_path / "artifacts/~unfinished/crashed").write_bytes(b"half")
    assert [found.key for found in store.list("")] == ["data/a"]


def test_what_writes_have_left_is_told_and_discarded(store: LocalArtifactStore, tmp_path: Path) -> None:
    assert list(store.unfinished()) == []
    store.put_bytes("data/a", b"x")
    crashed = tmp_path / "artifacts/~unfinished/crashed"
    crashed.write_bytes(b"half")
    os.utime(crashed, (1_000_000_000, 1_000_000_000))
    (found,) = store.unfinished()
    assert (found.name, found.size_bytes, found.modified_at.timestamp()) == ("crashed", 4, 1_000_000_000)
    for _ in range(2):
        store.discard(found)
        assert list(store.unfinished()) == []
    assert [found.key for found in store.list("")] == ["data/a"]


def test_a_write_whose_file_was_discarded_fails_as_a_whole(
    store: LocalArtifactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It slept for longer than the grace. Nothing of it becomes an object."""
    link = os.link

    def sleep_and_link(source: Path, target: Path) -> None:
        for write in store.unfinished():
            store.discard(write)
        link(source, target)

    monkeypatch.setattr(os, "link", sleep_and_link)
    with pytest.raises(FileNotFoundError):
        store.put_bytes("data/a", b"x")
    assert list(store.list("")) == []


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


@pytest.mark.parametrize("writable", [True, False])
def test_a_store_that_is_no_folder_is_told_with_a_remedy(tmp_path: Path, writable: bool) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(TraceError, match="name a folder") as caught:
        LocalArtifactStore(tmp_path / "file").check(writable=writable)
    assert caught.value.reason == errors_pb2.ERROR_REASON_INTERNAL


def test_a_url_names_a_store(tmp_path: Path) -> None:
    store = open_store(f"file://{tmp_path}/with%20space")
    store.put_bytes("a", b"x")
    assert (tmp_path / "with space" / "a").read_bytes() == b"x"
    assert (open_store(f"file://localhost{tmp_path}/x").local_path("a")) == tmp_path / "x" / "a"
