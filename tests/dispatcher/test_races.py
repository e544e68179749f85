"""Two connections, one of which is stopped inside its open transaction. Each test names the lock that it stands on."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from dispatcher.audit import store as audit
from dispatcher.db.pool import transaction
from dispatcher.db.rows import Connection
from dispatcher.events import store as events_store
from dispatcher.events.accept import Acceptance
from dispatcher.events.producers import lock_producers
from dispatcher.events.values import Accepted, Emit
from dispatcher.rpc import convert
from kernel.ids import new_id
from tests.dispatcher.builders import (
    CHAIN,
    READER,
    Source,
    Worker,
    artifact,
    at,
    between,
    event,
    reason_of,
    start_source,
    success,
    verdict,
)
from tests.dispatcher.in_process import DEADLINE, InProcess
from traceapi.types.v1.scope_pb2 import Scope
from traceapi.worker.v1.emit_pb2 import EmitItem, EmitResult

pytestmark = pytest.mark.races

# Every event of an open or replayed subscription's input has its task. What it answers was missed.
MISSED = """
select count(*)
from subscription s
join event e on e.dataset_version_id = s.input_version_id
where not exists (select 1 from task t where t.job_version_id = s.job_version_id and t.event_id = e.event_id)
"""


async def _no_lock(connection: Connection, dags: set[str]) -> None:
    """Instead of `share_dags`."""


@pytest.mark.parametrize("locked", [True, False])
async def test_a_consumer_deployed_while_an_event_is_accepted_gets_it(
    dispatcher: InProcess, source: Source, monkeypatch: pytest.MonkeyPatch, locked: bool
) -> None:
    """Acceptance is open when the consumer subscribes. Without its shared lock the event is missed for ever."""
    if not locked:
        monkeypatch.setattr(events_store, "share_dags", _no_lock)
    await source.publish([1])
    acceptance, ops = Acceptance(new_id), [convert.emit(await source.item([2]), new_id).with_consumers(2)]
    async with transaction(dispatcher.pool) as connection:
        producers = await lock_producers(connection, ops)
        results = await acceptance.accept(producers, ops)
        deploying = asyncio.create_task(dispatcher.deploy(READER))
        await dispatcher.until_waiting_or_done(deploying)
        assert deploying.done() is not locked
        await acceptance.publish(producers, ops, results)
    await deploying
    while await dispatcher.replay():
        pass
    assert await dispatcher.value(MISSED) == (0 if locked else 1)


@pytest.mark.parametrize("locked", [True, False])
async def test_an_event_accepted_while_its_consumer_is_deployed_reaches_it(
    dispatcher: InProcess, source: Source, monkeypatch: pytest.MonkeyPatch, locked: bool
) -> None:
    """The deployment is open, with its subscription written, when the event comes."""
    if not locked:
        monkeypatch.setattr(events_store, "share_dags", _no_lock)
    await source.publish([1])
    stopped, go_on = asyncio.Event(), asyncio.Event()
    record: Callable[..., Awaitable[None]] = audit.record

    async def stop_before_commit(*arguments: Any, **details: Any) -> None:
        await record(*arguments, **details)
        stopped.set()
        await go_on.wait()

    monkeypatch.setattr(audit, "record", stop_before_commit)
    deploying = asyncio.create_task(dispatcher.deploy(READER))
    async with asyncio.timeout(DEADLINE):
        await stopped.wait()
    emitting = asyncio.create_task(source.publish([2]))
    await dispatcher.until_waiting_or_done(emitting)
    assert emitting.done() is not locked
    go_on.set()
    await asyncio.gather(deploying, emitting)
    while await dispatcher.replay():
        pass
    assert await dispatcher.value(MISSED) == (0 if locked else 1)


async def test_publication_numbers_are_in_commit_order(dispatcher: InProcess, source: Source) -> None:
    """The first to write is the last to commit, and gets the higher number."""
    await source.publish([1, 2])
    slow, quick = await _copy(dispatcher, 1, at(1)), await _copy(dispatcher, 2, at(2))
    acceptance = Acceptance(new_id)
    async with transaction(dispatcher.pool) as connection:
        producers = await lock_producers(connection, [slow.op])
        results = await acceptance.accept(producers, [slow.op])
        assert verdict(await quick.emit()) == "accepted"
        await acceptance.publish(producers, [slow.op], results)
    numbers = await dispatcher.rows(
        "select p.number, e.scope_first from event e join publication p using (publication_id, dataset_version_id)"
        " join dataset_version v using (dataset_version_id) where v.dataset_id = 'copies' order by 1"
    )
    assert [(number, int.from_bytes(key, "big") - 2**63) for number, key in numbers] == [(1, 2), (2, 1)]


async def test_publication_numbers_have_no_gaps_under_concurrency(dispatcher: InProcess, source: Source) -> None:
    await source.publish(range(1, 41))
    copies = [await _copy(dispatcher, number, at(number)) for number in range(1, 41)]
    await asyncio.gather(*(copy.emit() for copy in copies))
    numbers = await dispatcher.rows(
        "select p.number, h.number from publication p join dataset_head h using (dataset_version_id)"
        " join dataset_version v using (dataset_version_id) where v.dataset_id = 'copies' order by 1"
    )
    assert [number for number, _ in numbers] == list(range(1, numbers[0][1] + 1))


async def test_overlaps_are_refused_also_when_two_transactions_race(dispatcher: InProcess, source: Source) -> None:
    await source.publish([1, 2])
    first, second = await _copy(dispatcher, 1, between(0, 9)), await _copy(dispatcher, 2, between(9, 19))
    acceptance = Acceptance(new_id)
    async with transaction(dispatcher.pool) as connection:
        producers = await lock_producers(connection, [first.op])
        results = await acceptance.accept(producers, [first.op])
        await acceptance.publish(producers, [first.op], results)
        rival = asyncio.create_task(second.emit())
        await dispatcher.until_waiting_or_done(rival)
        assert not rival.done()
    assert verdict(await rival) == "SCOPE_OVERLAP"
    refused = await dispatcher.value("select refused_attempt from task where task_id = %s", second.task_id)
    assert refused == 1, "its success must be refused too"


async def test_of_two_racing_files_of_one_scope_one_is_visible(dispatcher: InProcess, source: Source) -> None:
    await source.publish([1, 2])
    first, second = await _copy(dispatcher, 1, between(0, 9)), await _copy(dispatcher, 2, between(0, 9))
    acceptance = Acceptance(new_id)
    async with transaction(dispatcher.pool) as connection:
        producers = await lock_producers(connection, [first.op])
        results = await acceptance.accept(producers, [first.op])
        assert verdict(await second.emit()) == "accepted"
        await acceptance.publish(producers, [first.op], results)
    visible = await dispatcher.rows(
        "select producer_task_id::text from artifact join dataset_version v using (dataset_version_id)"
        " where v.dataset_id = 'copies' and removed_publication_id is null"
    )
    assert visible == [(first.task_id,)]


async def test_two_racing_first_commits_freeze_one_schema(dispatcher: InProcess) -> None:
    await dispatcher.deploy(CHAIN.replace("outputs: {copies: {schema: {number: int64}}}", "outputs: {copies: {}}"))
    source = await start_source(dispatcher)
    await source.publish([1, 2])
    first = await _copy(dispatcher, 1, at(1))
    second = await _copy(dispatcher, 2, at(2), schema={"number": "int64", "more": "string"})
    acceptance = Acceptance(new_id)
    async with transaction(dispatcher.pool) as connection:
        producers = await lock_producers(connection, [first.op])
        results = await acceptance.accept(producers, [first.op])
        rival = asyncio.create_task(second.emit())
        await dispatcher.until_waiting_or_done(rival)
        assert not rival.done()
        await acceptance.publish(producers, [first.op], results)
    assert reason_of((await rival).error) == "SCHEMA_DRIFT"
    frozen = "select schema from dataset_version where dataset_id = 'copies'"
    assert await dispatcher.value(frozen) == {"number": "int64"}


async def test_a_refused_emit_freezes_no_schema(dispatcher: InProcess) -> None:
    await dispatcher.deploy(CHAIN.replace("outputs: {copies: {schema: {number: int64}}}", "outputs: {copies: {}}"))
    source = await start_source(dispatcher)
    await source.publish([1, 2])
    wrong = await _copy(dispatcher, 1, at(1, revision=3), schema={"wrong": "string"})
    assert verdict(await wrong.emit()) == "SCOPE_MISMATCH"
    right = await _copy(dispatcher, 2, at(2))
    assert verdict(await right.emit()) == "accepted"


async def test_a_takeover_waits_for_the_emit_that_holds_the_task(dispatcher: InProcess, source: Source) -> None:
    """The lease is judged on the locked row: whoever writes under it has it until the commit."""
    await source.publish([1])
    copy = await _copy(dispatcher, 1, at(1))
    acceptance = Acceptance(new_id)
    async with transaction(dispatcher.pool) as connection:
        producers = await lock_producers(connection, [copy.op])
        results = await acceptance.accept(producers, [copy.op])
        assert isinstance(results[0], Accepted)
        expiring = asyncio.create_task(dispatcher.expire())
        await dispatcher.until_waiting_or_done(expiring)
        assert not expiring.done()
        await acceptance.publish(producers, [copy.op], results)
    assert await expiring == 2
    assert verdict(await copy.emit()) == "STALE_LEASE"


async def test_who_waits_for_a_dag_holds_no_task(dispatcher: InProcess, source: Source) -> None:
    """An emit and the end after it, in one transaction. Who has the DAG's lock may come to wait for the task's row."""
    await source.publish([1])
    copy = await _copy(dispatcher, 1, at(1))
    (lease,) = copy.item.tasks
    async with transaction(dispatcher.pool) as deploying:
        lock = "select pg_advisory_xact_lock(%s, hashtext('chain'))"
        await deploying.execute(lock, (events_store.DAG_LOCK_CLASS,))
        settling = asyncio.create_task(copy.worker.end([copy.item], [success(lease, events=1)]))
        await dispatcher.until_waiting_or_done(settling)
        assert not settling.done()
        await deploying.execute("select from task where task_id = %s for update nowait", (copy.task_id,))
    assert await settling == (["accepted"], ["succeeded"])


class _Copy:
    """A claimed task of `copies` with the emit that it is going to make."""

    def __init__(self, worker: Worker, task_id: str, item: EmitItem) -> None:
        self.worker, self.task_id, self.item = worker, task_id, item

    @property
    def op(self) -> Emit:
        return convert.emit(self.item, new_id)

    async def emit(self) -> EmitResult:
        (result,) = await self.worker.emit(self.item)
        return result


async def _copy(dispatcher: InProcess, number: int, scope: Scope, schema: dict[str, str] | None = None) -> _Copy:
    worker = Worker(dispatcher)
    await dispatcher.release()
    task_id = await dispatcher.task_of("chain", "copies", number)
    lease = worker.lease(await worker.claim_one(task_id))
    file = await artifact(dispatcher, "copies", scope, schema=schema)
    item = EmitItem(tasks=[lease], artifacts=[file], events=[event("copies", scope, artifact=0)])
    return _Copy(worker, task_id, item)
