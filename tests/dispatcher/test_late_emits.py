"""An emit that was accepted and arrives once more, when others have been accepted since: a packet that was delayed.

It gets its first answer, and hinders nothing; least of all the success of the attempt that it belongs to.
"""

from tests.dispatcher.builders import Source, at, event, int64, reason_of, success, verdict
from tests.dispatcher.in_process import InProcess
from traceapi.types.v1.task_pb2 import TaskLease
from traceapi.worker.v1.emit_pb2 import EmitItem, StateWrite


async def _standing(dispatcher: InProcess) -> list[tuple[bytes, int, bytes]]:
    """State, its version, and the watermark."""
    return await dispatcher.rows(
        "select o.data, o.version, w.cursor_key from operator_state o cross join watermark w"
        " join dataset_version v using (dataset_version_id) where v.dataset_id = 'blocks'"
    )


async def test_it_gets_its_first_answer_and_changes_nothing(dispatcher: InProcess, source: Source) -> None:
    item = await source.item([1, 2])
    (first,) = await source.worker.emit(item)
    source.version = 1
    await source.publish([3])
    await source.publish([4])
    before = await _standing(dispatcher)
    (late,) = await source.worker.emit(item)
    assert late.accepted.state_version == first.accepted.state_version == 1
    assert [one.event_id for one in late.accepted.events] == [one.event_id for one in first.accepted.events]
    assert [one.duplicate for one in late.accepted.events] == [True, True]
    assert await _standing(dispatcher) == before
    assert await source.worker.complete(success(source.lease, 4)) == ["succeeded"]


async def test_so_does_one_that_has_a_watermark_only(dispatcher: InProcess, source: Source) -> None:
    item = await source.item([1])
    item.ClearField("state")
    await source.worker.emit(item)
    await source.publish([2])
    before = await _standing(dispatcher)
    assert [verdict(result) for result in await source.worker.emit(item)] == ["accepted"]
    assert await _standing(dispatcher) == before
    assert await source.worker.complete(success(source.lease, 2)) == ["succeeded"]


async def test_an_event_that_stands_is_found_in_the_midst_of_new_ones(dispatcher: InProcess, source: Source) -> None:
    """Below it and above it, too: it is looked for where the scopes of the emit are, of which most are new."""
    first = await source.item([10, 20])
    (accepted,) = await source.worker.emit(first)
    ten, twenty = [one.event_id for one in accepted.accepted.events]
    for numbers, standing in [([5, 7], {}), ([8, 10, 12], {1: ten}), ([20, 30], {0: twenty}), ([11, 13, 15, 19], {})]:
        events = [event("blocks", at(number), artifact=0) for number in numbers]
        item = EmitItem(tasks=[source.lease], artifacts=first.artifacts, events=events)
        (result,) = await source.worker.emit(item)
        found = {place: one.event_id for place, one in enumerate(result.accepted.events) if one.duplicate}
        assert found == standing
    assert await dispatcher.value("select count(*) from event") == 11
    assert await source.worker.complete(success(source.lease, 11)) == ["succeeded"]


async def test_with_another_event_it_is_no_repetition(source: Source) -> None:
    item = await source.item([1])
    await source.worker.emit(item)
    source.version = 1
    await source.publish([2])
    await source.publish([3])
    item.events.append(event("blocks", at(4), artifact=0))
    (refused,) = await source.worker.emit(item)
    assert reason_of(refused.error) == "STATE_CONFLICT"
    assert await source.worker.complete(success(source.lease, 3)) == ["EMIT_REFUSED"]


async def test_nor_by_another_attempt(dispatcher: InProcess, source: Source) -> None:
    item = await source.item([1])
    await source.worker.emit(item)
    source.version = 1
    await source.publish([2])
    await source.publish([3])
    await dispatcher.expire()
    (task_id,) = await dispatcher.release(1)
    lease = source.worker.lease(await source.worker.claim_one(task_id))
    item.tasks[0].CopyFrom(TaskLease(task_id=task_id, attempt=lease.attempt, lease_token=lease.lease_token))
    (refused,) = await source.worker.emit(item)
    assert reason_of(refused.error) == "STATE_CONFLICT"


async def test_a_state_without_events_that_was_overtaken_is_refused_and_refuses_no_success(source: Source) -> None:
    """Nobody can tell it from a write that knew too little; but nothing is missing without it."""
    item = EmitItem(tasks=[source.lease], state=StateWrite(data=b"at 0", expected_version=0))
    item.watermarks.add(dataset_id="blocks", cursor=int64(0))
    await source.worker.emit(item)
    source.version = 1
    await source.publish([1])
    await source.publish([2])
    (refused,) = await source.worker.emit(item)
    assert reason_of(refused.error) == "STATE_CONFLICT"
    assert await source.worker.complete(success(source.lease, 2)) == ["succeeded"]
