"""What a store says of an emit's artifacts before its transaction: many at once, and no guess where it is silent."""

import asyncio
import dataclasses
import hashlib
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from dispatcher.events.values import Emit, NewArtifact
from dispatcher.events.verify import ArtifactVerifier
from dispatcher.tasks.leases import LeaseRef
from kernel.artifacts import ArtifactStore, LocalArtifactStore, StoredObject, open_store
from kernel.errors import TraceError
from kernel.ids import new_id
from kernel.scopes import scope_key
from tests.dispatcher.builders import at
from tests.s3_faults import Answer, faulty_path_to
from tests.s3_server import S3Server
from traceapi.types.v1.errors_pb2 import ErrorReason


@pytest.fixture(params=["disk", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ArtifactStore:
    if request.param == "disk":
        return LocalArtifactStore(tmp_path / "artifacts")
    server: S3Server = request.getfixturevalue("s3")
    return open_store(server.url(new_id()))


def stored(store: ArtifactStore, key: str) -> NewArtifact:
    """An artifact as a wrapper states it, and its object."""
    found = store.put_bytes(key, key.encode())
    return NewArtifact(new_id(), "d", key, scope_key(at(1)), 1, 1, found.size_bytes, found.sha256, b"", {})


def emit(*artifacts: NewArtifact) -> Emit:
    return Emit((LeaseRef(new_id(), 1, b""),), None, artifacts=artifacts)


async def test_each_emit_is_judged_by_its_own_artifacts(store: ArtifactStore) -> None:
    good = [stored(store, f"data/{number}") for number in range(20)]
    other_bytes = dataclasses.replace(good[1], sha256=hashlib.sha256(b"other").digest())
    other_size = dataclasses.replace(good[1], size_bytes=1)
    missing = dataclasses.replace(good[1], object_key="data/none")
    outside = dataclasses.replace(good[1], object_key="../none")
    ops = [emit(*good), emit(good[0], other_bytes), emit(other_size), emit(missing, good[0]), emit(outside), emit()]
    found = [
        op.unverified and ErrorReason.Name(op.unverified.reason) for op in await ArtifactVerifier(store).verify(ops)
    ]
    mismatch = "ERROR_REASON_ARTIFACT_MISMATCH"
    assert found == [None, mismatch, mismatch, mismatch, "ERROR_REASON_INVALID_REQUEST", None]


async def test_a_store_without_an_answer_refuses_no_emit(s3: S3Server) -> None:
    """The call fails and can be repeated; a refusal would end the attempt."""
    with faulty_path_to(s3.endpoint) as faults:
        store = open_store(s3.url(new_id(), endpoint=faults.endpoint))
        op = emit(stored(store, "data/1"))
        faults.plan("HEAD", Answer(503), times=4)
        with pytest.raises(TraceError) as caught:
            await ArtifactVerifier(store).verify([op])
        assert caught.value.reason == ErrorReason.ERROR_REASON_UNAVAILABLE
        assert await ArtifactVerifier(store).verify([op]) == [op]


class Meeting(LocalArtifactStore):
    """A store that answers nobody before `wanted` have asked."""

    def __init__(self, root: Path, wanted: int) -> None:
        super().__init__(root)
        self.barrier = threading.Barrier(wanted)

    def stat(self, key: str, *, digest: bool) -> StoredObject | None:
        self.barrier.wait(30)
        return super().stat(key, digest=digest)


async def test_artifacts_of_one_call_are_asked_for_together(tmp_path: Path) -> None:
    store = Meeting(tmp_path / "artifacts", wanted=12)
    artifacts = [stored(store, f"data/{number}") for number in range(24)]
    ops = [emit(*artifacts[:5]), emit(*artifacts[5:])]
    assert await ArtifactVerifier(store).verify(ops) == ops


class Waiting(LocalArtifactStore):
    """A store that answers when it is told to, and counts who waits."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.asked = threading.Semaphore(0)
        self.most, self.now = 0, 0
        self.open_gate = threading.Event()
        self.lock = threading.Lock()

    def stat(self, key: str, *, digest: bool) -> StoredObject | None:
        with self.lock:
            self.now += 1
            self.most = max(self.most, self.now)
        self.asked.release()
        self.open_gate.wait(30)
        with self.lock:
            self.now -= 1
        return super().stat(key, digest=digest)


@pytest.fixture
def waiting(tmp_path: Path) -> Iterator[Waiting]:
    store = Waiting(tmp_path / "artifacts")
    yield store
    store.open_gate.set()


async def test_a_call_of_many_artifacts_leaves_room_for_another(waiting: Waiting) -> None:
    artifacts = [stored(waiting, f"data/{number}") for number in range(100)]
    verifier = ArtifactVerifier(waiting)
    large = asyncio.create_task(verifier.verify([emit(*artifacts)]))
    for _ in range(12):
        await asyncio.to_thread(waiting.asked.acquire)
    small = asyncio.create_task(verifier.verify([emit(artifacts[0])]))
    await asyncio.to_thread(waiting.asked.acquire)
    assert waiting.most == 13
    waiting.open_gate.set()
    await asyncio.gather(large, small)
