"""Barriers that were passed after the halt of releases that came with them: how long they are good, and for whom."""

from datetime import UTC, datetime, timedelta

import pytest

from dispatcher.deploy import barrier
from dispatcher.deploy.advancing import advance
from tests.dispatcher.builders import Source
from tests.dispatcher.changing import Fleet, state, watch
from tests.dispatcher.in_process import InProcess
from tests.dispatcher.switches.builds import HALTED, OPEN, built, older, run_again, work_of_active
from traceapi.control.v1.deployment_pb2 import Deployment

# What a reader of `sums` sees of scope 1: its newest revision.
SEEN = """
select max(e.revision) from event e join pointer p using (dataset_version_id)
where p.dataset_id = 'sums' and e.scope_first = (select min(scope_first) from event)
"""
TAKEN = "select barriers_by_itself from dag_version where dag_version_id = %s"
LONGER = "update dag set releases_held_until = releases_held_until + %s * interval '1 s'"


async def _advance(dispatcher: InProcess, building: Deployment) -> str:
    await advance(dispatcher.pool, lambda: None)
    return state((await watch(dispatcher, building)).deployment)


async def _took(
    dispatcher: InProcess, fleet: Fleet, seconds: int, *, halted: int, ago: int
) -> tuple[Source, Deployment]:
    """A barrier that one task kept for so long, such as in a backoff, and that was passed so long ago. Releases were
    halted for a part of it."""
    source, building = await built(dispatcher, fleet)
    await source.publish([3])
    await fleet.work("copies")
    assert await _advance(dispatcher, building) == "building"
    assert await dispatcher.value(HALTED)
    await dispatcher.run(LONGER, halted - 30)
    await older(dispatcher, seconds)
    await fleet.work("sums", "last")
    await barrier.note_passed(dispatcher.pool, building.deployment_id)
    await older(dispatcher, ago)
    assert not await dispatcher.value(HALTED)
    return source, building


async def test_one_that_took_longer_than_its_halt_is_not_good_without_a_halt(
    dispatcher: InProcess, fleet: Fleet
) -> None:
    """Tasks are short, so a longer halt would do: what is active has shown scope 1 as it was run again meanwhile."""
    _, building = await _took(dispatcher, fleet, 600, halted=30, ago=300)
    await run_again(dispatcher, 1)
    await work_of_active(dispatcher, fleet)
    assert await dispatcher.value(SEEN) == 1
    assert await dispatcher.rows(OPEN, "staged") == [("sums", 1)]
    assert await _advance(dispatcher, building) == "building"
    assert await dispatcher.value(HALTED), "another barrier comes with a halt"
    await fleet.work()
    assert await _advance(dispatcher, building) == "active"
    assert await dispatcher.value(SEEN) == 1


@pytest.mark.parametrize(
    ("took", "ago", "becomes"),
    [
        pytest.param(300, 250, "active", id="outlived the longest halt"),
        pytest.param(300, 350, "building", id="and was passed long ago"),
        pytest.param(100, 50, "building", id="was passed while they were halted"),
    ],
)
async def test_one_that_outlived_the_longest_halt_is_good_for_as_long_as_it_took(
    dispatcher: InProcess, fleet: Fleet, took: int, ago: int, becomes: str
) -> None:
    """A version whose tasks take that long would never take over else."""
    source, building = await _took(dispatcher, fleet, took, halted=120, ago=ago)
    await source.publish([4], watermark=False)
    await fleet.work("copies")
    assert await dispatcher.rows(OPEN, "staged"), "it has something in work"
    assert await _advance(dispatcher, building) == becomes


@pytest.mark.parametrize(
    ("since", "until", "good"),
    [
        pytest.param(-1, 119.5, True, id="halted for as long as can be"),
        pytest.param(-1, 30, False, id="halted for a short time"),
        pytest.param(300, 420, False, id="and long after that again"),
        pytest.param(125, 245, True, id="asked for again at once"),
    ],
)
def test_what_a_barrier_outlives_is_the_longest_halt(since: float, until: float, good: bool) -> None:
    def at(seconds: float) -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)

    assert barrier.Barrier(at(0), at(600), True, False, 0, at(since), at(until), at(900)).good is good


AT = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("by_itself", "pause"), [(0, 30), (1, 30), (2, 60), (3, 120), (4, 240), (7, 1_920), (8, 3_600), (100, 3_600)]
)
def test_each_halt_that_came_to_nothing_doubles_the_pause_before_the_next_one(by_itself: int, pause: int) -> None:
    """What takes longer than any halt would halve what is active for ever."""
    length = timedelta(seconds=30)
    for late, may in ((-1, False), (1, True)):
        now = AT + timedelta(seconds=pause + late)
        last = barrier.Barrier(AT - length, AT, True, False, by_itself, AT - length, AT, now)
        assert last.may_be_retaken(length, asked=False) is may
        assert last.may_be_retaken(length, asked=True) is True, "a person need not wait for that"


async def test_a_build_that_did_not_get_there_says_when_releases_are_halted_again(
    dispatcher: InProcess, fleet: Fleet
) -> None:
    source, building = await _took(dispatcher, fleet, 60, halted=30, ago=0)
    await source.publish([4], watermark=False)
    await fleet.work("copies")
    assert await _advance(dispatcher, building) == "building"
    said = (
        "what came last is still to be done; halting releases of what is active was not enough, which is done again at "
    )
    assert (await watch(dispatcher, building)).waiting_for.startswith(said)
    await older(dispatcher, 120)
    assert await _advance(dispatcher, building) == "building"
    assert await dispatcher.value(HALTED)
    assert await dispatcher.value(TAKEN, building.deployment_id) == 2
    await fleet.work("sums", "last")
    assert await _advance(dispatcher, building) == "active"
