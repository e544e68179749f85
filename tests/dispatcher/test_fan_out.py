"""Consumers come while a source runs: no transaction grows beyond its rows, and the source goes on in smaller steps."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.events.values import (
    MAX_ROWS,
    Accepted,
    ConsumersChanged,
    Emit,
    NewArtifact,
    NewEvent,
    StateChange,
    WatermarkMove,
    max_events_per_emit,
)
from dispatcher.rpc import convert, settling
from dispatcher.tasks.leases import LeaseRef
from kernel.ids import new_id
from kernel.scopes import ScopeKey, ScopeKind
from tests.dispatcher.builders import (
    CHAIN,
    Source,
    Worker,
    between,
    event,
    failure,
    manifest,
    reason_of,
    start_source,
    success,
    verdict,
)
from tests.dispatcher.in_process import InProcess
from traceapi.types.v1.job_pb2 import JobDetails
from traceapi.types.v1.task_pb2 import ErrorClass
from traceapi.worker.v1.emit_pb2 import EmitItem, StateWrite


def _readers(count: int) -> str:
    jobs = "".join(
        f"  echo{n}: {{operator: splitter, inputs: {{blocks: {{}}}}, outputs: {{echoes{n}: {{storage: none}}}}}}\n"
        for n in range(count)
    )
    return f"dag: readers\njobs:\n{jobs}"


async def _claimed_details(dispatcher: InProcess, *known: str) -> list[JobDetails]:
    """Takes the run of `blocks` back and claims it again."""
    await dispatcher.expire()
    await dispatcher.release()
    run = await dispatcher.value("select task_id::text from task where origin = 'source_run'")
    return list((await Worker(dispatcher).claim([run], known_details_ids=known)).jobs)


async def test_details_are_answered_again_when_a_setting_of_theirs_has_changed(dispatcher: InProcess) -> None:
    await dispatcher.deploy(CHAIN)
    (first,) = await _claimed_details(dispatcher)
    assert first.max_events_per_emit == max_events_per_emit(2)
    assert await _claimed_details(dispatcher, first.details_id) == []
    await dispatcher.deploy(_readers(10))
    (second,) = await _claimed_details(dispatcher, first.details_id)
    assert second.job_version_id == first.job_version_id
    assert second.details_id != first.details_id
    assert second.max_events_per_emit == max_events_per_emit(12) < first.max_events_per_emit


async def test_a_source_that_met_new_consumers_goes_on_in_its_next_attempt(dispatcher: InProcess) -> None:
    await dispatcher.deploy(CHAIN)
    source = await start_source(dispatcher)
    limit = max_events_per_emit(2)
    await source.publish(range(limit))
    await dispatcher.deploy(_readers(20))
    (refused,) = await source.worker.emit(await source.item(range(limit, 2 * limit)))
    assert reason_of(refused.error) == "TOO_MANY_ROWS"
    passing = failure(source.lease, error_class=ErrorClass.ERROR_CLASS_TRANSIENT)
    assert await source.worker.complete(passing) == ["backoff"]
    await dispatcher.end_backoffs()
    (details,) = await _claimed_details(dispatcher)
    await dispatcher.expire()
    next_run = await start_source(dispatcher)
    next_run.version = source.version
    await next_run.publish(range(limit, limit + details.max_events_per_emit))
    assert await dispatcher.value("select count(*) from event") == limit + details.max_events_per_emit


async def test_an_emit_that_was_counted_for_fewer_consumers_is_not_judged(
    dispatcher: InProcess, source: Source
) -> None:
    """The consumer subscribes between the count and the transaction: the emit is counted anew, and then accepted."""
    item = await source.item([1, 2])
    op = convert.emit(item, new_id)
    hot = dispatcher.hot
    assert await hot.batcher.submit(hot.emit, [op]) == [ConsumersChanged(2)]
    assert await dispatcher.value("select count(*) from event") == 0
    (accepted,) = await hot.batcher.submit(hot.emit, [op.with_consumers(2)])
    assert isinstance(accepted, Accepted)


async def test_what_follows_under_the_key_of_a_postponed_emit_is_postponed_too(
    dispatcher: InProcess, source: Source
) -> None:
    first = convert.emit(await source.item([1]), new_id)
    second = convert.emit(await source.item([2]), new_id)._replace(consumers=2)
    hot = dispatcher.hot
    assert await hot.batcher.submit(hot.emit, [first, second]) == [ConsumersChanged(2), ConsumersChanged(2)]


async def test_the_end_that_came_with_a_postponed_emit_follows_it(dispatcher: InProcess, source: Source) -> None:
    """The first emit about a dataset is counted for no consumers, so its success must wait for its second try."""
    item = await source.item([1, 2])
    assert await source.worker.end([item], [success(source.lease, 2)]) == (["accepted"], ["succeeded"])
    assert await dispatcher.value("select count(*) from task where origin = 'live'") == 4


@pytest.mark.parametrize("consumers", [0, 1, 2, 3, 7, 40, 400])
def test_the_limit_of_events_keeps_any_emit_within_a_transaction(consumers: int) -> None:
    """A thousand leases, a file for each event, state and every output's watermark."""
    assert _largest(max_events_per_emit(consumers), consumers).cost <= MAX_ROWS


@given(st.integers(0, 600))
def test_more_consumers_never_mean_more_events(consumers: int) -> None:
    assert 1 <= max_events_per_emit(consumers + 1) <= max_events_per_emit(consumers)


def _largest(events: int, consumers: int) -> Emit:
    scope = ScopeKey(ScopeKind.CURSOR, b"\x80", b"\x80", 0)
    file = NewArtifact("", "d", "", scope, 1, 0, 0, b"", b"", {})
    return Emit(
        leases=(LeaseRef("", 1, b""),) * 1000,
        stream=None,
        artifacts=(file,) * events,
        events=(NewEvent("", "d", scope, 1, 0, 0, b"", None),) * events,
        state=StateChange(b"", 0),
        watermarks=(WatermarkMove("d", b"", 1),) * 200,
        consumers=consumers,
    )


async def test_an_emit_writes_no_more_rows_than_it_costs(dispatcher: InProcess) -> None:
    """Of a dataset there are a publication, a head and a schema to write, besides what is in it."""
    await dispatcher.deploy(CHAIN)
    item = await (await start_source(dispatcher)).item([1])
    tables = "select relname from pg_class where relkind = 'r' and relnamespace = 'public'::regnamespace"
    of_state = "select count(*) as n from {} where xmin = (select xmin from operator_state)"
    of_all = " union all ".join(of_state.format(table) for (table,) in await dispatcher.rows(tables))
    (result,) = await Worker(dispatcher).emit(item)
    assert verdict(result) == "accepted"
    op = convert.emit(item, new_id).with_consumers(2)
    assert 9 <= sum([row[0] for row in await dispatcher.rows(of_all)]) <= op.cost
    file = dataclasses.replace(op.artifacts[0], dataset_id="another")
    assert op._replace(artifacts=(*op.artifacts, file)).cost == op.cost + 2 + 3


async def test_a_call_whose_emits_were_counted_for_too_few_goes_in_parts(
    dispatcher: InProcess, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settling, "MAX_CALL_ROWS", 40)  # of 38 as counted at first, and 46 then
    items = []
    for number in range(1, 5):
        item = await source.item([number])
        item.state.expected_version = number - 1
        items.append(item)
    emitted, ended = await source.worker.end(items, [success(source.lease, 4)])
    assert (emitted, ended) == (["accepted"] * 4, ["succeeded"])


LONG_RUNS = CHAIN.replace("config: {size: 10},", "config: {size: 10000}, execution: {max_run_tasks: 1000},")
RANGE_READER = """\
dag: readers
jobs:
  echo: {operator: splitter, inputs: {ranges: {}}, outputs: {echoes: {storage: none}}}
"""


async def test_no_end_passes_before_its_postponed_emit_also_where_they_need_two_transactions(
    dispatcher: InProcess,
) -> None:
    """A run of a thousand: emit and ends are more rows than one transaction has, and the emit is counted anew."""
    await dispatcher.deploy(LONG_RUNS)
    await dispatcher.deploy(RANGE_READER)
    source = await start_source(dispatcher)
    for first in (0, 500):
        await source.publish(range(first, first + 500))
    await dispatcher.release()
    worker = Worker(dispatcher)
    run = await worker.claim_run(await dispatcher.task_of("chain", "ranges", 0))
    assert len(run.tasks) == 1000
    emit = EmitItem(
        tasks=worker.leases(run),
        stream=run.stream,
        events=[event("ranges", between(0, 999), task=999, units=manifest(0, 999))],
        state=StateWrite(data=b"state", expected_version=run.state.version),
    )
    emits, ends = await worker.end([emit], [success(lease, stream=run.stream) for lease in worker.leases(run)])
    assert (emits, set(ends)) == (["accepted"], {"succeeded"})
    assert await dispatcher.value("select count(*) from operator_state where data = 'state'::bytea") == 1


async def test_an_emit_without_events_is_counted_once(dispatcher: InProcess) -> None:
    await dispatcher.deploy(CHAIN)
    await dispatcher.deploy(RANGE_READER)
    source = await start_source(dispatcher)
    await source.publish([1])
    await dispatcher.release()
    worker = Worker(dispatcher)
    run = await worker.claim_run(await dispatcher.task_of("chain", "ranges", 1))
    state = StateWrite(data=b"state", expected_version=run.state.version)
    op = convert.emit(EmitItem(tasks=worker.leases(run), stream=run.stream, state=state), new_id)
    (answer,) = await dispatcher.hot.batcher.submit(dispatcher.hot.emit, [op])
    assert isinstance(answer, Accepted)
