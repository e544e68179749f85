"""Acceptance: each event once, each consumer's task once, and nothing from whoever lost the right to speak."""

import asyncio
import hashlib
from dataclasses import dataclass

import pytest

from dispatcher.rpc import convert
from dispatcher.tasks.leases import Refusal
from kernel.ids import new_id
from tests.dispatcher.builders import (
    Source,
    Worker,
    artifact,
    at,
    between,
    event,
    failure,
    int64,
    reason_of,
    success,
    verdict,
)
from tests.dispatcher.in_process import InProcess
from traceapi.types.v1.errors_pb2 import ErrorReason
from traceapi.types.v1.scope_pb2 import CursorValue, Scope
from traceapi.types.v1.task_pb2 import TaskLease
from traceapi.worker.v1.emit_pb2 import EmitItem, EmitResult, StateWrite, WatermarkMove


@dataclass(slots=True)
class Copy:
    """A claimed task of the job `copies`, which writes one file and one event per block."""

    worker: Worker
    task_id: str
    lease: TaskLease
    number: int

    async def item(self, content: bytes = b"rows", scope: Scope | None = None) -> EmitItem:
        where = scope or at(self.number)
        key_number = hashlib.sha256(content).hexdigest()[:8]
        version = await self.worker.dispatcher.value(
            "select dataset_version_id::text from pointer where dataset_id = 'copies'"
        )
        key = f"data/{version}/{self.task_id}-{self.lease.attempt}-{key_number}.parquet"
        file = await artifact(self.worker.dispatcher, "copies", where, content=content, key=key)
        return EmitItem(tasks=[self.lease], artifacts=[file], events=[event("copies", where, artifact=0)])

    async def emit(self, content: bytes = b"rows", scope: Scope | None = None) -> EmitResult:
        (result,) = await self.worker.emit(await self.item(content, scope))
        return result

    async def again(self) -> "Copy":
        """The next attempt, by the same worker."""
        await self.worker.dispatcher.end_backoffs()
        return await claim_copy(self.worker.dispatcher, self.number)


async def claim_copy(dispatcher: InProcess, number: int) -> Copy:
    worker = Worker(dispatcher)
    await dispatcher.release()
    task_id = await dispatcher.task_of("chain", "copies", number)
    return Copy(worker, task_id, worker.lease(await worker.claim_one(task_id)), number)


@pytest.fixture
async def copy(dispatcher: InProcess, source: Source) -> Copy:
    await source.publish([1, 2, 3])
    return await claim_copy(dispatcher, 1)


async def _events(dispatcher: InProcess, dataset: str = "copies") -> int:
    return int(
        await dispatcher.value(
            "select count(*) from event e join dataset_version v using (dataset_version_id) where v.dataset_id = %s",
            dataset,
        )
    )


async def test_an_event_makes_one_task_per_consumer_in_its_transaction(dispatcher: InProcess, source: Source) -> None:
    events = await source.publish([1, 2, 3])
    tasks = await dispatcher.rows(
        "select t.event_id::text, j.job, t.state::text from task t join job_version j using (job_version_id)"
        " where t.origin = 'live' order by 1, 2"
    )
    assert tasks == sorted((event_id, job, "queued") for event_id in events for job in ("copies", "ranges"))
    transactions = await dispatcher.value(
        "select count(distinct xmin::text) from"
        " (select xmin from event union all select xmin from artifact union all select xmin from watermark"
        "  union all select xmin from task where origin = 'live' union all select xmin from publication) rows"
    )
    assert transactions == 1


async def test_an_expired_lease_can_neither_emit_nor_complete(dispatcher: InProcess, copy: Copy) -> None:
    item = await copy.item()
    await dispatcher.run("update task set lease_until = clock_timestamp() where task_id = %s", copy.task_id)
    (result,) = await copy.worker.emit(item)
    assert reason_of(result.error) == "STALE_LEASE"
    assert await copy.worker.complete(success(copy.lease)) == ["STALE_LEASE"]
    assert await _events(dispatcher) == 0


async def test_an_older_attempt_can_neither_emit_nor_complete(dispatcher: InProcess, copy: Copy) -> None:
    item = await copy.item()
    await dispatcher.expire()
    later = await copy.again()
    assert later.lease.attempt == 2
    (result,) = await copy.worker.emit(item)
    assert reason_of(result.error) == "STALE_LEASE"
    assert await copy.worker.complete(success(copy.lease)) == ["STALE_LEASE"]
    assert verdict(await later.emit()) == "accepted"
    assert await later.worker.complete(success(later.lease, 1)) == ["succeeded"]


async def test_another_token_can_neither_emit_nor_complete(dispatcher: InProcess, copy: Copy) -> None:
    item = await copy.item()
    item.tasks[0].lease_token = b"x" * 32
    (result,) = await copy.worker.emit(item)
    assert reason_of(result.error) == "STALE_LEASE"
    assert await copy.worker.complete(success(item.tasks[0])) == ["STALE_LEASE"]
    assert verdict(await copy.emit()) == "accepted"


@pytest.mark.parametrize("run_state", ["superseded", "rolled_back", "retired"])
async def test_a_fenced_job_version_can_neither_emit_nor_complete(
    dispatcher: InProcess, copy: Copy, run_state: str
) -> None:
    await dispatcher.run("update job_version_run set run_state = %s::run_state", run_state)
    assert verdict(await copy.emit()) == "TASK_CANCELED"
    assert await copy.worker.complete(success(copy.lease)) == ["TASK_CANCELED"]


async def test_the_same_emit_twice_is_one_event(dispatcher: InProcess, copy: Copy) -> None:
    first = await copy.emit()
    second = await copy.emit()
    assert [(e.duplicate, e.differs) for e in first.accepted.events] == [(False, False)]
    assert [(e.duplicate, e.differs) for e in second.accepted.events] == [(True, False)]
    assert first.accepted.events[0].event_id == second.accepted.events[0].event_id
    assert await _events(dispatcher) == 1
    assert await copy.worker.complete(success(copy.lease, 1)) == ["succeeded"]


async def test_the_same_emit_twice_in_one_call_is_one_event(dispatcher: InProcess, copy: Copy) -> None:
    item = await copy.item()
    first, second = await copy.worker.emit(item, item)
    assert first.accepted.events[0].event_id == second.accepted.events[0].event_id
    assert [e.duplicate for e in second.accepted.events] == [True]
    assert await _events(dispatcher) == 1


async def test_one_attempt_does_not_contradict_itself(dispatcher: InProcess, copy: Copy) -> None:
    assert verdict(await copy.emit(b"one")) == "accepted"
    assert verdict(await copy.emit(b"other")) == "EVENT_CONFLICT"
    assert await copy.worker.complete(success(copy.lease, 1)) == ["EMIT_REFUSED"]
    assert await _events(dispatcher) == 1


async def test_a_later_attempt_that_differs_is_recorded_and_the_first_stands(dispatcher: InProcess, copy: Copy) -> None:
    first = await copy.emit(b"one")
    await copy.worker.complete(failure(copy.lease))
    later = await copy.again()
    second = await later.emit(b"other")
    assert [(e.event_id, e.duplicate, e.differs) for e in second.accepted.events] == [
        (first.accepted.events[0].event_id, True, True)
    ]
    assert await later.worker.complete(success(later.lease, 1)) == ["succeeded"]
    assert await dispatcher.value("select nondeterministic from task where task_id = %s", copy.task_id)
    artifacts = await dispatcher.rows(
        "select sha256, producer_attempt from artifact where producer_task_id = %s", copy.task_id
    )
    assert artifacts == [(hashlib.sha256(b"one").digest(), 1)]


async def test_a_later_attempt_that_agrees_is_a_plain_duplicate(dispatcher: InProcess, copy: Copy) -> None:
    await copy.emit(b"one")
    await dispatcher.expire()
    later = await copy.again()
    second = await later.emit(b"one")
    assert [(e.duplicate, e.differs) for e in second.accepted.events] == [(True, False)]
    assert not await dispatcher.value("select nondeterministic from task where task_id = %s", copy.task_id)


async def test_a_refused_emit_refuses_the_success_that_comes_with_it(dispatcher: InProcess, copy: Copy) -> None:
    item = await copy.item()
    item.events[0].scope.revision = 7
    hot = dispatcher.hot
    emit, complete = convert.emit(item, new_id), convert.completion(success(copy.lease), "worker-1")
    (emitted,), (completed,) = await asyncio.gather(  # in one transaction
        hot.batcher.submit(hot.emit, [emit]), hot.batcher.submit(hot.complete, [complete])
    )
    assert isinstance(emitted, Refusal)
    assert emitted.reason == ErrorReason.ERROR_REASON_SCOPE_MISMATCH
    assert isinstance(completed, Refusal)
    assert completed.reason == ErrorReason.ERROR_REASON_EMIT_REFUSED
    assert await copy.worker.complete(success(copy.lease)) == ["EMIT_REFUSED"]
    assert await copy.worker.complete(failure(copy.lease)) == ["backoff"]
    later = await copy.again()
    assert verdict(await later.emit()) == "accepted"
    assert await later.worker.complete(success(later.lease, 1)) == ["succeeded"]


async def test_a_success_without_its_events_is_refused(dispatcher: InProcess, copy: Copy) -> None:
    assert await copy.worker.complete(success(copy.lease, 1)) == ["EVENTS_MISSING"]
    assert verdict(await copy.emit()) == "accepted"
    assert await copy.worker.complete(success(copy.lease, 1)) == ["succeeded"]


async def test_one_bad_item_does_not_touch_the_others(dispatcher: InProcess, source: Source) -> None:
    await source.publish([1, 2, 3])
    copies = [await claim_copy(dispatcher, number) for number in (1, 2, 3)]
    items = [await copy.item(str(copy.number).encode()) for copy in copies]
    items[1].artifacts[0].key = "bundles/..=/../x"
    for item, copy in zip(items, copies, strict=True):
        item.tasks[0].lease_token = copy.worker.token
    results = await copies[0].worker.emit(*items)
    assert [verdict(result) for result in results] == ["accepted", "INVALID_REQUEST", "accepted"]
    completions = [success(copy.lease, 1) for copy in copies]
    assert await copies[0].worker.complete(*completions) == ["succeeded", "EMIT_REFUSED", "succeeded"]


async def test_an_item_that_fails_its_transaction_leaves_the_others_published(
    dispatcher: InProcess, source: Source
) -> None:
    """What the batcher has to search for must not cost the others their publication."""
    await source.publish([1, 2, 3])
    copies = [await claim_copy(dispatcher, number) for number in (1, 2, 3)]
    items = [await copy.item(str(copy.number).encode()) for copy in copies]
    await dispatcher.run("alter table event add constraint poison check (event_time is null)")
    items[1].events[0].event_time.seconds = 1
    results = await copies[0].worker.emit(*items)
    assert [verdict(result) for result in results] == ["accepted", "INTERNAL", "accepted"]
    completions = [success(copy.lease, int(copy.number != 2)) for copy in copies]
    assert await copies[0].worker.complete(*completions) == ["succeeded", "EMIT_REFUSED", "succeeded"]
    unpublished = await dispatcher.value(
        "select count(*) from event e where not exists"
        " (select 1 from publication p"
        "  where p.publication_id = e.publication_id and p.dataset_version_id = e.dataset_version_id)"
    )
    assert unpublished == 0
    numbers = await dispatcher.rows(
        "select p.number from publication p join dataset_version v using (dataset_version_id)"
        " where v.dataset_id = 'copies' order by 1"
    )
    assert numbers == [(n,) for n in range(1, len(numbers) + 1)]


async def test_values_beyond_the_columns_are_the_fault_of_their_item(dispatcher: InProcess, source: Source) -> None:
    await source.publish([1, 2, 3])
    copies = [await claim_copy(dispatcher, number) for number in (1, 2, 3)]
    items = [await copy.item(str(copy.number).encode()) for copy in copies]
    items[0].artifacts[0].row_count = 2**64 - 1
    items[1].events[0].event_time.seconds = 2**62
    items[2].tasks[0].attempt = 2**32 - 1
    results = await copies[0].worker.emit(*items)
    assert [verdict(result) for result in results] == ["INVALID_REQUEST", "INVALID_REQUEST", "STALE_LEASE"]
    assert await copies[0].worker.complete(success(items[2].tasks[0])) == ["STALE_LEASE"]


async def test_state_is_compared_and_a_repeated_write_gets_the_first_answer(
    dispatcher: InProcess, source: Source
) -> None:
    item = await source.item([1])
    (first,) = await source.worker.emit(item)
    (again,) = await source.worker.emit(item)
    assert (first.accepted.state_version, again.accepted.state_version) == (1, 1)
    stale = EmitItem(tasks=[source.lease], state=StateWrite(data=b"another", expected_version=0))
    (refused,) = await source.worker.emit(stale)
    assert reason_of(refused.error) == "STATE_CONFLICT"
    assert await dispatcher.rows("select data, version from operator_state") == [(b"1", 1)]


async def test_a_stateless_job_keeps_no_state_and_declares_no_watermark(copy: Copy) -> None:
    item = await copy.item()
    item.state.data = b"mine"
    (result,) = await copy.worker.emit(item)
    assert reason_of(result.error) == "INVALID_REQUEST"
    again = await copy.item()
    again.watermarks.add(dataset_id="copies", cursor=int64(1))
    (result,) = await copy.worker.emit(again)
    assert reason_of(result.error) == "INVALID_REQUEST"


async def test_a_watermark_never_goes_back(dispatcher: InProcess, source: Source) -> None:
    await source.publish([5])
    back = EmitItem(tasks=[source.lease], watermarks=[WatermarkMove(dataset_id="blocks", cursor=int64(4))])
    (refused,) = await source.worker.emit(back)
    assert reason_of(refused.error) == "WATERMARK_BACKWARDS"
    same = EmitItem(tasks=[source.lease], watermarks=[WatermarkMove(dataset_id="blocks", cursor=int64(5))])
    assert [verdict(result) for result in await source.worker.emit(same)] == ["accepted"]


async def test_declared_columns_are_kept(dispatcher: InProcess, copy: Copy) -> None:
    item = await copy.item()
    file = await artifact(dispatcher, "copies", at(1), schema={"number": "string"})
    item.artifacts[0].CopyFrom(file)
    (result,) = await copy.worker.emit(item)
    assert reason_of(result.error) == "SCHEMA_DRIFT"
    assert "number: string" in result.error.message


async def test_a_file_that_is_not_in_the_store_is_refused(copy: Copy) -> None:
    item = await copy.item()
    item.artifacts[0].key = item.artifacts[0].key.replace(".parquet", ".gone")
    (result,) = await copy.worker.emit(item)
    assert reason_of(result.error) == "ARTIFACT_MISMATCH"


async def test_a_file_with_other_bytes_is_refused(copy: Copy) -> None:
    item = await copy.item()
    item.artifacts[0].sha256 = bytes(32)
    (result,) = await copy.worker.emit(item)
    assert reason_of(result.error) == "ARTIFACT_MISMATCH"


async def test_a_file_of_another_dataset_version_is_refused(dispatcher: InProcess, copy: Copy) -> None:
    item = await copy.item()
    foreign = await artifact(dispatcher, "blocks", at(1))
    foreign.dataset_id = "copies"
    item.artifacts[0].CopyFrom(foreign)
    (result,) = await copy.worker.emit(item)
    assert reason_of(result.error) == "ARTIFACT_CONFLICT"


async def test_a_dataset_of_another_job_is_refused(copy: Copy) -> None:
    item = await copy.item()
    item.events[0].dataset_id = "blocks"
    (result,) = await copy.worker.emit(item)
    assert reason_of(result.error) == "DATASET_NOT_PRODUCED"


@pytest.mark.parametrize(
    "scope", [Scope(partition_key="1"), at(1, revision=1), Scope(cursor=CursorValue(string_value="1"))], ids=str
)
async def test_a_scope_of_another_kind_is_refused(copy: Copy, scope: Scope) -> None:
    assert verdict(await copy.emit(scope=scope)) == "SCOPE_MISMATCH"


async def test_files_that_overlap_in_part_are_refused(dispatcher: InProcess, source: Source) -> None:
    await source.publish([1, 2])
    first, second = await claim_copy(dispatcher, 1), await claim_copy(dispatcher, 2)
    assert verdict(await first.emit(b"a", between(0, 9))) == "accepted"
    assert verdict(await second.emit(b"b", between(9, 19))) == "SCOPE_OVERLAP"
    assert await second.worker.complete(success(second.lease)) == ["EMIT_REFUSED"]


async def test_files_of_one_call_that_overlap_in_part_are_not_both_accepted(
    dispatcher: InProcess, source: Source
) -> None:
    await source.publish([1, 2, 3])
    copies = [await claim_copy(dispatcher, number) for number in (1, 2, 3)]
    scopes = [between(0, 9), between(5, 19), between(30, 39)]
    items = [await copy.item(bytes([copy.number]), scope) for copy, scope in zip(copies, scopes, strict=True)]
    verdicts = [verdict(result) for result in await copies[0].worker.emit(*items)]
    assert sorted(verdicts[:2]) == ["SCOPE_OVERLAP", "accepted"]
    assert verdicts[2] == "accepted"


async def test_of_two_files_of_one_scope_the_newer_is_visible(dispatcher: InProcess, source: Source) -> None:
    await source.publish([1, 2])
    first, second = await claim_copy(dispatcher, 1), await claim_copy(dispatcher, 2)
    await first.emit(b"old", between(0, 9))
    await second.emit(b"new", between(0, 9))
    assert await _visible(dispatcher) == [hashlib.sha256(b"new").digest()]


async def test_of_two_files_of_one_scope_in_one_transaction_one_is_visible(
    dispatcher: InProcess, source: Source
) -> None:
    await source.publish([1, 2])
    first, second = await claim_copy(dispatcher, 1), await claim_copy(dispatcher, 2)
    items = [await first.item(b"old", between(0, 9)), await second.item(b"new", between(0, 9))]
    await first.worker.emit(*items)
    assert await _visible(dispatcher) == [hashlib.sha256(b"new").digest()]


async def _visible(dispatcher: InProcess) -> list[bytes]:
    rows = await dispatcher.rows(
        "select sha256 from artifact a join dataset_version v using (dataset_version_id)"
        " where v.dataset_id = 'copies' and removed_publication_id is null"
    )
    return [row[0] for row in rows]


async def test_an_emit_larger_than_a_transaction_is_refused_and_so_is_its_success(source: Source) -> None:
    item = await source.item(range(1, 2001))  # each with two consumers' tasks: 6,000 rows
    (result,) = await source.worker.emit(item)
    assert reason_of(result.error) == "TOO_MANY_ROWS"
    assert await source.worker.complete(success(source.lease)) == ["EMIT_REFUSED"]


async def test_an_emit_and_the_end_of_its_attempt_are_one_transaction(dispatcher: InProcess, copy: Copy) -> None:
    assert await copy.worker.end([await copy.item()], [success(copy.lease, 1)]) == (["accepted"], ["succeeded"])
    one = "select e.xmin = a.xmin from event e join attempt a on a.task_id = e.producer_task_id where a.task_id = %s"
    assert await dispatcher.value(one, copy.task_id)


async def test_a_refused_emit_refuses_the_success_that_came_with_it(dispatcher: InProcess, copy: Copy) -> None:
    await copy.emit(b"one")
    assert await copy.worker.end([await copy.item(b"other")], [success(copy.lease, 1)]) == (
        ["EVENT_CONFLICT"],
        ["EMIT_REFUSED"],
    )
    assert await copy.worker.complete(failure(copy.lease)) == ["backoff"]


async def test_an_emit_counts_also_where_the_end_that_came_with_it_is_refused(copy: Copy) -> None:
    emits, ends = await copy.worker.end([await copy.item()], [success(copy.lease, 2)])
    assert (emits, ends) == (["accepted"], ["EVENTS_MISSING"])
    assert await copy.worker.complete(success(copy.lease, 1)) == ["succeeded"]


async def test_an_end_that_is_repeated_after_it_took_effect_gets_its_first_answer(copy: Copy) -> None:
    item = await copy.item()
    await copy.worker.end([item], [success(copy.lease, 1)])
    assert await copy.worker.end([item], [success(copy.lease, 1)]) == (["STALE_LEASE"], ["succeeded"])


async def test_one_bad_emit_leaves_the_other_ends_of_its_call_alone(dispatcher: InProcess, source: Source) -> None:
    await source.publish([1, 2, 3])
    copies = [await claim_copy(dispatcher, number) for number in (1, 2, 3)]
    items = [await one.item(str(one.number).encode()) for one in copies]
    items[1].events[0].dataset_id = "nowhere"
    emits, ends = await copies[0].worker.end(items, [success(item.tasks[0], 1) for item in items])
    assert emits == ["accepted", "DATASET_NOT_PRODUCED", "accepted"]
    assert ends == ["succeeded", "EMIT_REFUSED", "succeeded"]
