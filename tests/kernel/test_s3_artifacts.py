"""The artifact store on S3, beyond what every store keeps: races, faults of the network, the server's refusals."""

import hashlib
import io
import random
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from kernel.artifacts import ArtifactConflict, ArtifactStore, StoredObject, open_store
from kernel.artifacts.s3 import S3ArtifactStore
from kernel.artifacts.s3_client import s3_client, translated
from kernel.artifacts.s3_location import S3Location
from kernel.artifacts.s3_upload import Content, PartSizes, Uploader
from kernel.errors import TraceError
from kernel.ids import new_id
from tests.s3_faults import Answer, CutRequest, Faults, LoseAnswer, faulty_path_to
from tests.s3_server import BUCKET, READER, S3Server
from traceapi.types.v1 import errors_pb2

KEY = "data/v/task-1-0.parquet"
SMALL_PARTS = PartSizes(single_bytes=6 << 20, part_bytes=5 << 20)
SMALL, LARGE = b"rows", random.Random(1).randbytes(12 << 20)
ATTEMPTS = 4


@pytest.fixture
def prefix() -> str:
    return new_id()


@pytest.fixture
def faults(s3: S3Server) -> Iterator[Faults]:
    """The way to the server, for this test alone."""
    with faulty_path_to(s3.endpoint) as found:
        yield found


@pytest.fixture
def store(s3: S3Server, faults: Faults, prefix: str) -> S3ArtifactStore:
    """A store at the end of that way; what is above 6 MiB goes in parts."""
    return S3ArtifactStore(S3Location.parse(s3.url(prefix, endpoint=faults.endpoint)), SMALL_PARTS)


def described(data: bytes) -> StoredObject:
    return StoredObject(KEY, len(data), hashlib.sha256(data).digest())


def unfinished_uploads(s3: S3Server, prefix: str) -> int:
    uploads = s3.client().list_multipart_uploads(Bucket=BUCKET).get("Uploads", [])
    return sum(upload["Key"].startswith(prefix) for upload in uploads)


def failure(store: ArtifactStore, data: bytes = SMALL) -> tuple[str, str]:
    """The reason's name and the message of a put that must fail."""
    with pytest.raises(TraceError) as caught:
        store.put_bytes(KEY, data)
    return caught.value.reason_name, caught.value.message


def _refusal_of_one(code: str) -> bytes:
    """The body of an answer to DeleteObjects, whose status says nothing."""
    return (
        f"<DeleteResult><Error><Key>{KEY}</Key><Code>{code}</Code><Message>no</Message></Error></DeleteResult>".encode()
    )


def test_a_digest_is_answered_without_reading_the_object(store: S3ArtifactStore, faults: Faults) -> None:
    data = LARGE[: 5 << 20]
    assert store.put_bytes(KEY, data) == described(data)
    assert store.stat(KEY, digest=True) == described(data)
    assert faults.count("GET") == 0


def test_an_object_whose_digest_the_server_does_not_know_is_read_once(
    store: S3ArtifactStore, faults: Faults, s3: S3Server, prefix: str
) -> None:
    s3.client().put_object(Bucket=BUCKET, Key=f"{prefix}/{KEY}", Body=LARGE)
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda _: store.stat(KEY, digest=True), range(8)))
    assert found == [described(LARGE)] * 8
    assert faults.count("GET") == 1


@pytest.mark.parametrize("data", [SMALL, LARGE], ids=["whole", "parts"])
@pytest.mark.parametrize("algorithm", ["CRC32", "SHA256"])
def test_a_corrupted_object_is_told_by_its_digest(
    store: S3ArtifactStore, s3: S3Server, prefix: str, data: bytes, algorithm: str
) -> None:
    """The same name and size, other bytes."""
    store.put_bytes(KEY, data)
    damaged = bytearray(data)
    damaged[len(data) // 2] ^= 1
    s3.client().put_object(
        Bucket=BUCKET,
        Key=f"{prefix}/{KEY}",
        Body=bytes(damaged),
        ChecksumAlgorithm=algorithm,  # type: ignore[arg-type]
    )
    assert store.stat(KEY, digest=True) == described(bytes(damaged)) != described(data)
    with pytest.raises(ArtifactConflict):
        store.put_bytes(KEY, data)


def test_a_large_object_goes_in_parts_and_is_written_once(
    store: S3ArtifactStore, faults: Faults, s3: S3Server, prefix: str, tmp_path: Path
) -> None:
    (tmp_path / "source").write_bytes(LARGE)
    assert store.put(KEY, tmp_path / "source") == described(LARGE)
    assert faults.count("PUT") == 3
    assert store.stat(KEY, digest=True) == described(LARGE)
    assert store.put(KEY, tmp_path / "source") == described(LARGE)
    with pytest.raises(ArtifactConflict):
        store.put_bytes(KEY, LARGE[:-1])
    with store.open(KEY) as content:
        assert content.read() == LARGE
    assert unfinished_uploads(s3, prefix) == 0


@pytest.mark.parametrize(("data", "cut"), [(SMALL, 2), (LARGE[: 5 << 20], 1 << 20), (LARGE, 1 << 20)])
def test_an_upload_that_is_cut_leaves_nothing_behind(
    store: S3ArtifactStore, faults: Faults, s3: S3Server, prefix: str, data: bytes, cut: int
) -> None:
    faults.plan("PUT", CutRequest(after_bytes=cut), times=ATTEMPTS)
    assert failure(store, data)[0] == "UNAVAILABLE"
    assert faults.count("PUT") == ATTEMPTS
    assert store.stat(KEY, digest=True) is None
    assert list(store.list("")) == []
    assert unfinished_uploads(s3, prefix) == 0
    assert store.put_bytes(KEY, data) == described(data)


@pytest.mark.parametrize("data", [SMALL, LARGE], ids=["whole", "parts"])
@pytest.mark.parametrize("fault", [CutRequest(after_bytes=1), LoseAnswer(), Answer(503)], ids=str)
@pytest.mark.parametrize("method", ["PUT", "POST"])
def test_a_request_that_is_lost_is_repeated(
    store: S3ArtifactStore, faults: Faults, data: bytes, fault: CutRequest | LoseAnswer | Answer, method: str
) -> None:
    """Also one that the server has fulfilled: the repeat finds its own object there."""
    faults.plan(method, fault)
    assert store.put_bytes(KEY, data) == described(data)
    assert store.stat(KEY, digest=True) == described(data)


def test_the_server_compares_what_arrives_with_its_digest(s3: S3Server, prefix: str) -> None:
    """A source that changes between its reading and its sending comes to that."""
    uploader = Uploader(s3_client(s3.endpoint, "us-east-1"), BUCKET, SMALL_PARTS)
    content = Content.of(io.BytesIO(b"before"), SMALL_PARTS.part_bytes)
    with pytest.raises(TraceError) as caught, translated("s3", KEY):
        uploader.send(f"{prefix}/{KEY}", replace(content, file=io.BytesIO(b"after!")))
    assert caught.value.reason == errors_pb2.ERROR_REASON_ARTIFACT_MISMATCH
    assert open_store(s3.url(prefix)).stat(KEY, digest=False) is None


def test_an_object_that_is_replaced_while_it_is_read_is_lost(store: S3ArtifactStore, s3: S3Server, prefix: str) -> None:
    store.put_bytes(KEY, LARGE)
    with store.open(KEY) as content:
        content.seek(8 << 20)
        s3.client().put_object(Bucket=BUCKET, Key=f"{prefix}/{KEY}", Body=bytes(len(LARGE)))
        with pytest.raises(TraceError) as caught:
            content.read()
    assert caught.value.reason == errors_pb2.ERROR_REASON_ARTIFACT_LOST


def test_long_lists_come_in_pages(store: S3ArtifactStore, faults: Faults) -> None:
    keys = [f"data/{number:04}" for number in range(1_001)]
    with ThreadPoolExecutor(16) as threads:
        list(threads.map(lambda key: store.put_bytes(key, b"x"), keys))
    assert sorted(found.key for found in store.list("data/")) == keys
    assert faults.count("GET") == 2


def test_uploads_that_were_cut_off_are_told_and_aborted(store: S3ArtifactStore, s3: S3Server, prefix: str) -> None:
    begun = s3.client().create_multipart_upload(Bucket=BUCKET, Key=f"{prefix}/{KEY}")
    s3.client().upload_part(
        Bucket=BUCKET, Key=f"{prefix}/{KEY}", UploadId=begun["UploadId"], PartNumber=1, Body=bytes(5 << 20)
    )
    (found,) = store.unfinished()
    assert found.key == KEY
    for _ in range(2):
        store.discard(found)
        assert list(store.unfinished()) == []
    assert unfinished_uploads(s3, prefix) == 0


@pytest.mark.parametrize(
    ("answer", "reason", "words"),
    [
        (Answer(503), "UNAVAILABLE", "503"),
        (Answer(200, _refusal_of_one("AccessDenied")), "INTERNAL", "s3:DeleteObject"),
        (Answer(200, _refusal_of_one("InternalError")), "UNAVAILABLE", "InternalError"),
    ],
    ids=["503", "denied", "broken"],
)
def test_a_deletion_that_is_refused_is_told(
    store: S3ArtifactStore, faults: Faults, answer: Answer, reason: str, words: str
) -> None:
    """Also of one object, in an answer that is otherwise good."""
    store.put_bytes(KEY, SMALL)
    faults.plan("POST", answer, times=20)
    with pytest.raises(TraceError, match=words) as caught:
        store.delete([KEY])
    assert caught.value.reason_name == reason
    assert store.stat(KEY, digest=False) is not None


def test_objects_survive_a_kill_of_the_server(store: S3ArtifactStore, s3: S3Server) -> None:
    store.put_bytes(KEY, LARGE)
    s3.kill()
    s3.start()
    assert store.stat(KEY, digest=True) == described(LARGE)
    with store.open(KEY) as content:
        assert content.read() == LARGE
    assert store.put_bytes("data/after", SMALL).sha256 == described(SMALL).sha256


@pytest.mark.parametrize(
    ("answer", "reason", "words"),
    [
        (Answer(500), "UNAVAILABLE", "500"),
        (
            Answer(503, b"<Error><Code>SlowDown</Code><Message>less</Message></Error>"),
            "UNAVAILABLE",
            "503 SlowDown less",
        ),
        (Answer(403, b"<Error><Code>AccessDenied</Code></Error>"), "INTERNAL", "s3:PutObject"),
        (Answer(404, b"<Error><Code>NoSuchBucket</Code></Error>"), "INTERNAL", "make the bucket"),
        (Answer(400, b"<Error><Code>AuthorizationHeaderMalformed</Code></Error>"), "INTERNAL", r"?region="),
        (Answer(501, b"<Error><Code>NotImplemented</Code></Error>"), "INTERNAL", "If-None-Match"),
        (Answer(409, b"<Error><Code>ConditionalRequestConflict</Code></Error>"), "UNAVAILABLE", "by others"),
    ],
    ids=lambda value: str(value.status) if isinstance(value, Answer) else None,
)
def test_a_refusal_has_its_reason_and_its_remedy(
    store: S3ArtifactStore, faults: Faults, answer: Answer, reason: str, words: str
) -> None:
    faults.plan("PUT", answer, times=20)
    found, message = failure(store)
    assert found == reason
    assert words in message
    assert BUCKET in message


def test_a_server_that_is_not_there_is_unavailable(s3: S3Server, prefix: str) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        reason, message = failure(open_store(s3.url(prefix, endpoint=endpoint)))
    assert reason == "UNAVAILABLE"
    assert endpoint in message


def test_a_missing_credential_is_told(
    s3: S3Server, faults: Faults, prefix: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", str(tmp_path))
    reason, message = failure(open_store(s3.url(prefix, endpoint=faults.endpoint)))
    assert reason == "INTERNAL"
    assert "credential" in message


def test_the_check_tells_what_a_credential_lacks(
    s3: S3Server, faults: Faults, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in READER.environment.items():
        monkeypatch.setenv(name, value)
    store = open_store(s3.url(prefix, endpoint=faults.endpoint))
    store.check(writable=False)
    with pytest.raises(TraceError, match="s3:PutObject"):
        store.check(writable=True)


def test_the_check_tells_of_a_bucket_that_is_not_there(s3: S3Server) -> None:
    for writable in (True, False):
        with pytest.raises(TraceError, match="make the bucket"):
            open_store(s3.url("", bucket="no-such-bucket")).check(writable=writable)


def test_the_check_refuses_a_server_that_overwrites(store: S3ArtifactStore, faults: Faults) -> None:
    """Such servers exist: they answer every PUT with success."""
    faults.plan("PUT", Answer(200), times=2)
    with pytest.raises(TraceError, match="ignores If-None-Match"):
        store.check(writable=True)
    store.check(writable=True)


def test_an_object_is_nowhere_on_this_disk(store: S3ArtifactStore) -> None:
    store.put_bytes(KEY, SMALL)
    assert store.local_path(KEY) is None
