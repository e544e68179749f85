"""Files that no attempt brought home are taken, and no others."""

import asyncio
import os
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from dispatcher.collecting import store, sweep
from dispatcher.collecting.orphans import FileKey, KeyFacts, orphans
from dispatcher.collecting.sweep import Sweeper, Swept
from dispatcher.db.pool import transaction
from dispatcher.db.rows import Connection
from dispatcher.events.accept import Acceptance
from dispatcher.events.producers import lock_producers
from dispatcher.rpc import convert
from kernel.artifacts import ArtifactStore, open_store
from kernel.artifacts.store import StoredObject
from kernel.ids import new_id
from tests.dispatcher.builders import Source, artifact, between, success
from tests.dispatcher.in_process import InProcess
from tests.s3_server import S3Server
from traceapi.control.v1 import retention_service_pb2 as pb

DAY = timedelta(days=1)
NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)


@pytest.fixture(params=["disk", "s3"])
def artifacts(request: pytest.FixtureRequest, dispatcher: InProcess) -> ArtifactStore:
    """The dispatcher's own store, and one on S3."""
    if request.param == "disk":
        return dispatcher.store
    server: S3Server = request.getfixturevalue("s3")
    return open_store(server.url(new_id()))


async def _sweep(
    dispatcher: InProcess, artifacts: ArtifactStore, *, grace: timedelta = -DAY, dry_run: bool = False
) -> list[Swept]:
    """The grace is before now, so that clocks that tick in seconds do not matter."""
    sweeper = Sweeper(dispatcher.pool, artifacts, grace)
    return [swept async for swept in sweeper.sweep("user:tester", dry_run=dry_run)]


async def _lost(dispatcher: InProcess, artifacts: ArtifactStore) -> str:
    """A file of an attempt that is over."""
    version = await dispatcher.value("select dataset_version_id::text from pointer where dataset_id = 'blocks'")
    key = f"data/{version}/{uuid.uuid4()}-1-0.parquet"
    artifacts.put_bytes(key, b"lost")
    return key


def _keys(artifacts: ArtifactStore) -> set[str]:
    return {found.key for found in artifacts.list("")}


async def test_a_file_that_no_attempt_brought_home_is_removed_and_a_named_one_stays(
    dispatcher: InProcess, source: Source, artifacts: ArtifactStore
) -> None:
    await source.publish([1, 2])
    named = await dispatcher.value("select object_key from artifact")
    if named not in _keys(artifacts):
        artifacts.put_bytes(named, b"as the dispatcher's own store has it")
    lost = await _lost(dispatcher, artifacts)
    gone = f"data/{uuid.uuid4()}/{uuid.uuid4()}-3-14.parquet"
    artifacts.put_bytes(gone, b"of no dataset")
    for dry_run in (True, False):
        assert _keys(artifacts) == {named, lost, gone}
        *chunks, last = await _sweep(dispatcher, artifacts, dry_run=dry_run)
        found = {orphan.key: (orphan.dataset_id, orphan.size_bytes) for each in chunks for orphan in each.orphans}
        assert found == {lost: ("blocks", 4), gone: ("", 13)}
        assert sum(each.looked_at for each in chunks) == 3
        assert last == Swept(0)
    assert _keys(artifacts) == {named}


async def test_a_running_attempt_holds_its_files_however_old_they_are(
    dispatcher: InProcess, source: Source, artifacts: ArtifactStore
) -> None:
    version = await dispatcher.value("select dataset_version_id::text from pointer where dataset_id = 'blocks'")
    attempt = source.lease.attempt
    of_it, former = (f"data/{version}/{source.lease.task_id}-{number}-7.parquet" for number in (attempt, attempt + 1))
    for key in (of_it, former):
        artifacts.put_bytes(key, b"x")
    await _sweep(dispatcher, artifacts)
    assert _keys(artifacts) == {of_it}
    await dispatcher.expire()
    await _sweep(dispatcher, artifacts)
    assert _keys(artifacts) == set()


async def test_what_no_wrapper_writes_stays(dispatcher: InProcess, source: Source, artifacts: ArtifactStore) -> None:
    strange = {"data/readme", f"data/{uuid.uuid4()}/file.parquet", f"data/{uuid.uuid4()}/{uuid.uuid4()}-1.parquet"}
    for key in (*strange, "bundles/x.tar"):
        artifacts.put_bytes(key, b"x")
    chunks = await _sweep(dispatcher, artifacts)
    assert sum(each.strange for each in chunks) == 3
    assert _keys(artifacts) == {*strange, "bundles/x.tar"}


async def test_writes_that_were_cut_off_are_removed_after_the_grace(
    dispatcher: InProcess, source: Source, s3: S3Server, tmp_path: Path
) -> None:
    crashed = tmp_path / "artifacts/~unfinished/crashed"
    crashed.parent.mkdir(parents=True, exist_ok=True)
    crashed.write_bytes(b"half")
    prefix = new_id()
    of_s3 = open_store(s3.url(prefix))
    s3.client().create_multipart_upload(Bucket="trace-test", Key=f"{prefix}/data/x")
    for artifacts, size in ((dispatcher.store, 4), (of_s3, 0)):
        assert (await _sweep(dispatcher, artifacts, grace=DAY))[-1] == Swept(0)
        cut_off = Swept(0, unfinished=1, unfinished_bytes=size)
        assert (await _sweep(dispatcher, artifacts, dry_run=True))[-1] == cut_off
        assert (await _sweep(dispatcher, artifacts))[-1] == cut_off
        assert list(artifacts.unfinished()) == []


async def test_files_are_judged_in_chunks(
    dispatcher: InProcess, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep, "CHUNK", 2)
    for _ in range(5):
        await _lost(dispatcher, dispatcher.store)
    *chunks, _ = await _sweep(dispatcher, dispatcher.store)
    assert [len(each.orphans) for each in chunks] == [2, 2, 1]
    assert _keys(dispatcher.store) == set()


async def test_a_file_whose_events_an_earlier_attempt_had_emitted_is_an_orphan(
    dispatcher: InProcess, source: Source
) -> None:
    await source.publish([1])
    (first,) = _keys(dispatcher.store)
    await dispatcher.expire()
    await dispatcher.run("update task set state = 'queued', retry_at = null where state = 'backoff'")
    await dispatcher.release()
    lease = source.worker.lease(await source.worker.claim_one(source.lease.task_id))
    again = replace(source, lease=lease)
    (result,) = await again.worker.emit(await again.item([1]))
    assert result.accepted.events[0].duplicate
    assert len(_keys(dispatcher.store)) == 2
    assert await source.worker.complete(success(lease, events=1)) == ["succeeded"]
    await _sweep(dispatcher, dispatcher.store)
    assert _keys(dispatcher.store) == {first}


@pytest.mark.races
@pytest.mark.parametrize("guarded", [True, False])
async def test_a_file_that_an_open_transaction_is_about_to_name_stays(
    dispatcher: InProcess, source: Source, monkeypatch: pytest.MonkeyPatch, guarded: bool
) -> None:
    """Its attempt is seen running. Without a look at that, the artifact's row is left without its file."""
    if not guarded:
        monkeypatch.setattr(store, "key_facts", _without_attempts)
    version = await dispatcher.value("select dataset_version_id::text from pointer where dataset_id = 'blocks'")
    key = f"data/{version}/{source.lease.task_id}-{source.lease.attempt}-0.parquet"
    item = await source.item([1])
    item.artifacts[0].CopyFrom(await artifact(dispatcher, "blocks", between(1, 1), key=key))
    op = convert.emit(item, new_id).with_consumers(2)
    acceptance = Acceptance(new_id)
    async with transaction(dispatcher.pool) as connection:
        producers = await lock_producers(connection, [op])
        results = await acceptance.accept(producers, [op])
        await acceptance.publish(producers, [op], results)
        await _sweep(dispatcher, dispatcher.store)
    assert await dispatcher.rows("select object_key from artifact") == [(key,)]
    assert (key in _keys(dispatcher.store)) == guarded


@pytest.mark.races
async def test_two_sweeps_at_once_remove_the_same_files(dispatcher: InProcess, source: Source) -> None:
    for _ in range(20):
        await _lost(dispatcher, dispatcher.store)
    await asyncio.gather(*(_sweep(dispatcher, dispatcher.store) for _ in range(3)))
    assert _keys(dispatcher.store) == set()


async def test_a_call_tells_what_it_finds_and_who_called_is_on_record(
    dispatcher: InProcess, source: Source, tmp_path: Path
) -> None:
    await source.publish([1])
    young, old = await _lost(dispatcher, dispatcher.store), await _lost(dispatcher, dispatcher.store)
    two_days_ago = datetime.now(UTC).timestamp() - 2 * 86_400
    os.utime(tmp_path / "artifacts" / old, (two_days_ago, two_days_ago))
    for dry_run in (True, False):
        request = pb.CollectOrphansRequest(dry_run=dry_run)
        answers = [answer async for answer in dispatcher.retention.CollectOrphans(request)]
        assert [orphan.key for answer in answers for orphan in answer.orphans] == [old]
        last = answers[-1]
        assert (last.looked_at_count, last.orphan_count, last.orphan_bytes) == (3, 1, 4)
    assert old not in _keys(dispatcher.store)
    assert young in _keys(dispatcher.store), "the grace is a day"
    recorded = "select actor, details from audit where method = 'RetentionService.CollectOrphans'"
    assert await dispatcher.rows(recorded) == [("user:tester", {"files": 1, "size_bytes": 4})]


@pytest.mark.parametrize(
    ("age", "named", "running", "taken"),
    [
        (DAY + timedelta(seconds=1), False, False, True),
        (DAY - timedelta(seconds=1), False, False, False),
        (100 * DAY, True, False, False),
        (100 * DAY, False, True, False),
        (-DAY, False, False, False),
    ],
)
def test_a_verdict_on_a_file(age: timedelta, named: bool, running: bool, taken: bool) -> None:
    found = StoredObject("key", 1, b"", NOW - age)
    fact = KeyFacts("key", named, running, "blocks", NOW)
    assert (orphans([found], {"key": fact}, DAY) == [found]) == taken
    assert orphans([found], {}, DAY) == []


def test_a_key_names_version_task_and_attempt() -> None:
    version, task = str(uuid.uuid4()), str(uuid.uuid4())
    key = f"data/{version}/{task}-12-3.parquet"
    assert FileKey.parse(key) == FileKey(key, version, task, 12)
    for other in (key[1:], key + "x", key.upper(), f"data/{version}/{task}-x-3.parquet"):
        assert FileKey.parse(other) is None


async def _without_attempts(connection: Connection, keys: Sequence[FileKey]) -> Mapping[str, KeyFacts]:
    """Instead of `key_facts`."""
    facts = await _key_facts(connection, keys)
    return {key: replace(fact, running=False) for key, fact in facts.items()}


_key_facts = store.key_facts
