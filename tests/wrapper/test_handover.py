"""Units on their way into processes: whose turn it is, and who pays for a process that ends."""

import asyncio

import pytest

from kernel.ids import new_id
from traceapi.types.v1.job_pb2 import JobDetails
from traceapi.types.v1.task_pb2 import TASK_ORIGIN_BACKFILL, TASK_ORIGIN_LIVE, TaskOrigin
from traceapi.worker.v1.worker_service_pb2 import ClaimedTask
from wrapper.handover import Handover, Slots
from wrapper.jobs import Job
from wrapper.unit import Unit

_JOB = Job(JobDetails(job="a", job_version_id=new_id()))


def unit(origin: TaskOrigin.ValueType = TASK_ORIGIN_BACKFILL) -> Unit:
    task = ClaimedTask(task_id=new_id(), attempt=1, origin=origin)
    return Unit(job=_JOB, tasks=[task], lease_token=b"", lease_until=1e12)


def process(slots: Slots, *units: Unit, credit: int) -> Handover:
    handover = Handover(slots)
    handover.add_credits(credit)
    for one in units:
        handover.give(one)
    return handover


async def handed(handover: Handover) -> list[int]:
    """The units of the next message; the test fails where none comes."""
    async with asyncio.timeout(5):
        message = await handover.next_message()
    assert message is not None
    return [one.unit_id for one in message.units]


async def nothing_is_handed(handover: Handover) -> "asyncio.Task[list[int]]":
    """Asks for the next message, and answers the question, which still waits."""
    question = asyncio.create_task(handed(handover))
    done, _ = await asyncio.wait([question], timeout=0)
    for _ in range(3):  # as often as it would take to come
        await asyncio.sleep(0)
    assert not done
    assert not question.done()
    return question


async def test_a_process_is_handed_as_many_units_as_it_has_credits_for() -> None:
    first, second, third = unit(), unit(), unit()
    handover = process(Slots(1), first, second, third, credit=2)
    assert await handed(handover) == [first.unit_id, second.unit_id]
    question = await nothing_is_handed(handover)
    handover.add_credits(1)
    assert await question == [third.unit_id]


async def test_what_is_live_passes_what_waits_and_not_for_ever() -> None:
    others, live = [unit() for _ in range(2)], [unit(TASK_ORIGIN_LIVE) for _ in range(9)]
    handover = process(Slots(1), *others, *live, credit=20)
    in_order = [*live[:7], others[0], *live[7:], others[1]]
    assert await handed(handover) == [one.unit_id for one in in_order]


async def test_a_process_with_something_live_is_called_before_those_that_came_first() -> None:
    slots = Slots(1)
    ours = unit()
    one = process(slots, ours, credit=1)
    assert await handed(one) == [ours.unit_id]
    early, live = unit(), unit(TASK_ORIGIN_LIVE)
    two, three = process(slots, early, credit=1), process(slots, live, credit=1)
    before, after = await nothing_is_handed(two), await nothing_is_handed(three)
    one.take_back(ours)
    assert await after == [live.unit_id]
    assert not before.done()
    three.take_back(live)
    assert await before == [early.unit_id]


async def test_no_more_processes_work_than_there_are_slots_and_everybody_has_a_turn() -> None:
    slots = Slots(1)
    ours, theirs, later = unit(), unit(), unit()
    one = process(slots, ours, credit=5)
    other = process(slots, theirs, credit=5)
    assert await handed(one) == [ours.unit_id]
    question = await nothing_is_handed(other)
    one.give(later)
    again = await nothing_is_handed(one)  # the other one's turn comes first
    one.take_back(ours)
    assert await question == [theirs.unit_id]
    assert not again.done()
    other.take_back(theirs)
    assert await again == [later.unit_id]


async def test_who_wants_nothing_any_more_does_not_hold_up_the_line() -> None:
    slots = Slots(1)
    ours, gone, theirs = unit(), unit(), unit()
    one = process(slots, ours, credit=1)
    vanishing = process(slots, gone, credit=1)
    other = process(slots, theirs, credit=1)
    assert await handed(one) == [ours.unit_id]
    left = await nothing_is_handed(vanishing)
    question = await nothing_is_handed(other)
    vanishing.take_back(gone)
    one.take_back(ours)
    assert await question == [theirs.unit_id]
    left.cancel()


async def test_only_the_unit_whose_turn_it_was_began_when_the_process_ends() -> None:
    first, second, third = unit(), unit(), unit()
    handover = process(Slots(1), first, second, third, credit=3)
    await handed(handover)
    handover.take_back(first)
    handover.close()
    handover.take_back(second)
    assert second.began is not None
    assert third.began is None


@pytest.mark.parametrize("count", [1, 3])
async def test_the_end_of_a_process_frees_its_slot(count: int) -> None:
    slots = Slots(1)
    units = [unit() for _ in range(count)]
    theirs = unit()
    handover = process(slots, *units, credit=1)
    other = process(slots, theirs, credit=1)
    await handed(handover)
    question = await nothing_is_handed(other)
    handover.close()
    for one in units:
        handover.take_back(one)
    assert await question == [theirs.unit_id]
