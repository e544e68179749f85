"""What every artifact store keeps, whatever it is made of: objects are written once, whole, and stay as they are."""

import hashlib
import io
import random
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kernel.artifacts import ArtifactConflict, ArtifactMissing, ArtifactStore, StoredObject, open_store
from kernel.errors import TraceError
from kernel.ids import new_id
from tests.s3_server import S3Server
from traceapi.types.v1 import errors_pb2

KEY = "data/0190b7a1-0000-7000-8000-000000000001/task-1-0.parquet"


@pytest.fixture(params=["disk", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ArtifactStore:
    """An empty store of each kind."""
    if request.param == "disk":
        return open_store((tmp_path / "artifacts").as_uri())
    server: S3Server = request.getfixturevalue("s3")
    return open_store(server.url(new_id()))


def test_what_is_put_is_there(store: ArtifactStore, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"rows" * 1_000_000)
    stored = store.put(KEY, source)
    assert stored == StoredObject(KEY, 4_000_000, hashlib.sha256(b"rows" * 1_000_000).digest())
    with store.open(KEY) as content:
        assert content.read() == source.read_bytes()
    assert store.stat(KEY, digest=True) == stored
    assert store.stat(KEY, digest=False) == StoredObject(KEY, 4_000_000, b"")


def test_an_object_without_bytes_is_one(store: ArtifactStore, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.touch()
    stored = store.put(KEY, source)
    assert store.stat(KEY, digest=True) == stored == StoredObject(KEY, 0, hashlib.sha256().digest())
    with store.open(KEY) as content:
        assert content.read() == b""


def test_content_can_be_read_anywhere(store: ArtifactStore) -> None:
    data = random.Random(3).randbytes(5_000_000)
    store.put_bytes(KEY, data)
    with store.open(KEY) as content:
        for position, length in [(4_999_990, 100), (0, 10), (2_000_000, 2_500_000), (4_500_000, 1), (4_500_001, 9)]:
            assert content.seek(position) == position
            assert content.read(length) == data[position : position + length]
        assert content.seek(-10, io.SEEK_END) == 4_999_990
        assert content.read() == data[-10:]
        content.seek(0)
        assert content.read() == data


def test_parts_of_an_object_are_read_by_many_threads(store: ArtifactStore) -> None:
    data = random.Random(3).randbytes(1_000_000)
    store.put_bytes(KEY, data)
    found = store.ranged(KEY)
    assert found.size_bytes == len(data)
    assert found.sha256 in (b"", hashlib.sha256(data).digest())
    with ThreadPoolExecutor(4) as threads:
        parts = list(threads.map(lambda start: found.read(start, 100_000), range(0, len(data), 100_000)))
    assert b"".join(parts) == data
    with pytest.raises(ArtifactMissing):
        store.ranged("data/none")


def test_a_parquet_file_is_read_from_the_store(store: ArtifactStore, tmp_path: Path) -> None:
    numbers = random.Random(5)
    table = pa.table({"number": range(300_000), "value": [numbers.random() for _ in range(300_000)]})
    pq.write_table(table, tmp_path / "file", row_group_size=50_000)
    store.put(KEY, tmp_path / "file")
    with store.open(KEY) as content:
        assert pq.ParquetFile(content).read(["value"]).equals(table.select(["value"]))
    with store.open(KEY) as content:
        assert pq.ParquetFile(content).read_row_group(4).equals(table.slice(200_000, 50_000))


def test_an_object_does_not_change_with_its_source(store: ArtifactStore, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"before")
    stored = store.put(KEY, source)
    source.write_bytes(b"after!")
    assert store.stat(KEY, digest=True) == stored


def test_the_same_content_again_is_a_repeat(store: ArtifactStore) -> None:
    stored = store.put_bytes(KEY, b"x")
    assert store.put_bytes(KEY, b"x") == stored


@pytest.mark.parametrize("content", [b"other", b"y", b""])
def test_other_content_is_a_conflict_and_changes_nothing(store: ArtifactStore, content: bytes) -> None:
    stored = store.put_bytes(KEY, b"x")
    with pytest.raises(ArtifactConflict) as caught:
        store.put_bytes(KEY, content)
    assert caught.value.reason == errors_pb2.ERROR_REASON_ARTIFACT_CONFLICT
    assert store.stat(KEY, digest=True) == stored
    assert [found.key for found in store.list("")] == [KEY]


def test_of_many_writers_at_once_one_wins_and_the_others_hear_of_it(store: ArtifactStore) -> None:
    def write(number: int) -> StoredObject | None:
        try:
            return store.put_bytes(KEY, b"%d" % (number % 4))
        except ArtifactConflict:
            return None

    with ThreadPoolExecutor(16) as threads:
        results = list(threads.map(write, range(64)))
    winner = store.stat(KEY, digest=True)
    assert winner is not None
    assert {result for result in results if result is not None} == {winner}
    assert sum(result is not None for result in results) == 16


def test_what_is_not_there_is_missing(store: ArtifactStore) -> None:
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
def test_a_key_that_could_leave_the_store_is_refused(store: ArtifactStore, key: str, tmp_path: Path) -> None:
    (tmp_path / "source").touch()
    for use in (
        lambda: store.put(key, tmp_path / "source"),
        lambda: store.put_bytes(key, b"x"),
        lambda: store.stat(key, digest=False),
        lambda: store.open(key),
        lambda: store.local_path(key),
        lambda: store.delete([key]),
    ):
        with pytest.raises(TraceError) as caught:
            use()
        assert caught.value.reason == errors_pb2.ERROR_REASON_INVALID_REQUEST
    assert list(store.list("")) == []


def test_links_are_not_followed(store: ArtifactStore, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "source").symlink_to(tmp_path / "secret")
    with pytest.raises(OSError, match="symbolic"):
        store.put("data/b", tmp_path / "source")
    assert store.stat("data/b", digest=False) is None


def test_a_folder_is_no_source(store: ArtifactStore, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not a regular file"):
        store.put(KEY, tmp_path)


def test_objects_are_listed_by_the_beginning_of_their_key(store: ArtifactStore) -> None:
    store.check(writable=True)  # what it leaves behind is no object
    for key in ("data/b/1", "data/a/2", "data/a/1", "data/a.b", "bundles/x.tar"):
        store.put_bytes(key, key.encode())

    def listed(prefix: str) -> list[tuple[str, int]]:
        return sorted((found.key, found.size_bytes) for found in store.list(prefix))

    assert listed("") == [("bundles/x.tar", 13), ("data/a.b", 8), ("data/a/1", 8), ("data/a/2", 8), ("data/b/1", 8)]
    assert listed("data/a") == [("data/a.b", 8), ("data/a/1", 8), ("data/a/2", 8)]
    assert listed("data/a/") == [("data/a/1", 8), ("data/a/2", 8)]
    assert listed("nothing/") == []
    assert listed("data/a/1/") == []


def test_a_listing_says_when_an_object_was_stored(store: ArtifactStore) -> None:
    began = datetime.now(UTC)
    store.put_bytes(KEY, b"x")
    (found,) = store.list("")
    assert found.modified_at is not None
    assert began - timedelta(seconds=2) < found.modified_at < datetime.now(UTC) + timedelta(seconds=2)


def test_what_is_deleted_is_gone_and_deleting_it_again_goes_on(store: ArtifactStore) -> None:
    for key in ("data/a", "data/b/1", "data/b/2"):
        store.put_bytes(key, b"x")
    for _ in range(2):
        store.delete(["data/b/1", "data/nowhere", "data/a/below", "data/b/2"])
        assert [found.key for found in store.list("")] == ["data/a"]
    store.delete([])
    store.put_bytes("data/b/1", b"another")
    assert store.stat("data/b/1", digest=False) == StoredObject("data/b/1", 7, b"")


def test_more_objects_than_a_request_holds_are_deleted(store: ArtifactStore) -> None:
    store.put_bytes("data/last", b"x")
    store.delete([f"data/{number}" for number in range(1_500)] + ["data/last"])
    assert list(store.list("")) == []


@pytest.mark.parametrize("prefix", ["/", "../", "data/../", "~"])
def test_a_prefix_that_could_leave_the_store_is_refused(store: ArtifactStore, prefix: str) -> None:
    with pytest.raises(TraceError):
        list(store.list(prefix))


@pytest.mark.parametrize("writable", [True, False])
def test_an_empty_store_can_be_used(store: ArtifactStore, writable: bool) -> None:
    store.check(writable=writable)
    store.check(writable=writable)
    assert list(store.list("")) == []


@pytest.mark.parametrize(
    "url",
    [
        "",
        "/absolute/path",
        "file://relative",
        "file://host/x",
        "file:///x?y",
        "file:x",
        "s3:bucket",
        "s3://",
        "s3://B",
        "s3://bucket/a b",
        "s3://bucket/../x",
        "s3://bucket/x?key=secret",
        "s3://bucket?endpoint=host:9000",
        "s3://bucket?endpoint=https://user:secret@host",
        "s3://bucket?endpoint=https://host/path",
        "s3://bucket?endpoint=http://10.0.0.1:9000",
        "s3://bucket?region=Here!",
        "s3://bucket#x",
        "https://bucket.s3.amazonaws.com",
    ],
)
def test_another_url_is_refused_with_a_remedy(url: str) -> None:
    with pytest.raises(ValueError, match=r"write (file|s3)://"):
        open_store(url)


def test_a_secret_in_the_url_is_refused_and_not_repeated() -> None:
    with pytest.raises(ValueError, match="AWS_SECRET_ACCESS_KEY") as caught:
        open_store("s3://key:hunter2@bucket/prefix")
    assert "hunter2" not in str(caught.value)
