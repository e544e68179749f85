"""A barrier is taken only where it still may be once the locks are there: of several who try, one does."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

import pytest

from dispatcher.db.rows import Connection
from dispatcher.deploy import barrier, cutover, stages
from dispatcher.deploy.stages import Standing
from kernel.ids import new_id
from tests.dispatcher.changing import Fleet, deploy
from tests.dispatcher.in_process import InProcess
from tests.dispatcher.switches.builds import CHANGED, HALTED, built
from traceapi.control.v1.deployment_pb2 import Deployment

HALTERS = "select count(*) from dag cross join lateral jsonb_object_keys(releases_held_by) where dag = 'chain'"
BARRIER = "select barrier_at from dag_version where dag_version_id = %s"


async def _about_to_take(dispatcher: InProcess, fleet: Fleet) -> Deployment:
    """A build that has passed what was there at its staging, and has something in work."""
    source, building = await built(dispatcher, fleet)
    await barrier.note_passed(dispatcher.pool, building.deployment_id)
    await source.publish([3])
    await fleet.work("copies")
    return building


def _before_the_locks(monkeypatch: pytest.MonkeyPatch, step: Callable[[], Awaitable[object]]) -> None:
    """Once, when it was looked at."""
    own = stages.own

    async def late(connection: Connection, dag: str, other: str | None = None) -> Standing:
        monkeypatch.setattr(stages, "own", own)
        await step()
        return await own(connection, dag, other)

    monkeypatch.setattr(stages, "own", late)


async def _take(dispatcher: InProcess, building: Deployment) -> bool:
    taker = barrier.Taker("chain", building.deployment_id, "user:tester")
    return await barrier.take(dispatcher.pool, taker, cutover.HALT)


async def _take_for_a_call(dispatcher: InProcess, building: Deployment) -> None:
    taker = barrier.Taker("chain", building.deployment_id, "user:tester", new_id())
    await barrier.take_for(dispatcher.pool, taker, cutover.HALT)


async def test_of_two_who_take_one_at_once_the_second_finds_the_first_ones(
    dispatcher: InProcess, fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    building = await _about_to_take(dispatcher, fleet)
    first: list[object] = []

    async def other() -> None:
        assert await _take(dispatcher, building)
        first.append(await dispatcher.value(BARRIER, building.deployment_id))

    _before_the_locks(monkeypatch, other)
    assert not await _take(dispatcher, building)
    assert [await dispatcher.value(BARRIER, building.deployment_id)] == first


async def test_none_is_taken_where_releases_were_halted_by_then(
    dispatcher: InProcess, fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would be one without a halt."""
    building = await _about_to_take(dispatcher, fleet)
    before = await dispatcher.value(BARRIER, building.deployment_id)

    async def meanwhile() -> None:
        await dispatcher.run("update dag set releases_held_until = clock_timestamp() - interval '1 s'")

    _before_the_locks(monkeypatch, meanwhile)
    assert not await _take(dispatcher, building)
    assert (await dispatcher.value(BARRIER, building.deployment_id), await dispatcher.value(HALTED)) == (before, False)


async def test_none_is_taken_by_itself_for_what_waits_for_a_person_by_then(
    dispatcher: InProcess, fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    building = await _about_to_take(dispatcher, fleet)
    before = await dispatcher.value(BARRIER, building.deployment_id)

    async def meanwhile() -> None:
        await deploy(dispatcher, CHANGED, hold=True)

    _before_the_locks(monkeypatch, meanwhile)
    assert not await _take(dispatcher, building)
    assert (await dispatcher.value(BARRIER, building.deployment_id), await dispatcher.value(HALTED)) == (before, False)
    await _take_for_a_call(dispatcher, building)
    assert await dispatcher.value(BARRIER, building.deployment_id) > before
    assert await dispatcher.value(HALTED)


async def test_none_is_taken_of_what_is_given_up_by_then(
    dispatcher: InProcess, fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    building = await _about_to_take(dispatcher, fleet)
    before = await dispatcher.value(BARRIER, building.deployment_id)

    async def given_up() -> None:
        await dispatcher.run("update dag set staged_version_id = null where dag = 'chain'")

    _before_the_locks(monkeypatch, given_up)
    assert not await _take(dispatcher, building)
    assert (await dispatcher.value(BARRIER, building.deployment_id), await dispatcher.value(HALTED)) == (before, False)


async def test_a_call_that_joins_a_barrier_takes_no_locks(
    dispatcher: InProcess, fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    building = await _about_to_take(dispatcher, fleet)
    await _take_for_a_call(dispatcher, building)
    before = await dispatcher.value(BARRIER, building.deployment_id)

    async def refused() -> None:
        raise AssertionError("acceptance would wait")

    _before_the_locks(monkeypatch, refused)
    await _take_for_a_call(dispatcher, building)
    assert await dispatcher.value(BARRIER, building.deployment_id) == before
    assert await dispatcher.value(HALTERS) == 2


TOOK = """
update dag_version
set barrier_retaken = true, barrier_at = clock_timestamp() - interval '50 s',
    barrier_passed_at = clock_timestamp() - interval '5 s'
where dag_version_id = %s
"""
LENGTH = "select round(extract(epoch from releases_held_until - releases_held_since))::int from dag where dag = 'chain'"


async def test_a_halt_lasts_as_long_as_the_last_barrier_says_that_tasks_take(
    dispatcher: InProcess, fleet: Fleet
) -> None:
    building = await _about_to_take(dispatcher, fleet)
    await dispatcher.run(TOOK, building.deployment_id)
    assert await _take(dispatcher, building)
    assert await dispatcher.value(LENGTH) == 90


AT = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("retaken", "took", "passed", "halted"),
    [
        pytest.param(True, 10, True, 30, id="in no time"),
        pytest.param(True, 45, True, 90, id="its tasks take long"),
        pytest.param(True, 600, True, 120, id="longer than anybody waits"),
        pytest.param(True, 45, False, 100, id="and it was not passed yet"),
        pytest.param(False, 600, True, 30, id="of the staging, which took as long as the build"),
    ],
)
def test_a_halt_is_twice_as_long_as_the_last_barrier_took(retaken: bool, took: int, passed: bool, halted: int) -> None:
    passed_at = AT + timedelta(seconds=took)
    now = passed_at + timedelta(seconds=5)
    last = barrier.Barrier(AT, passed_at if passed else None, retaken, False, 0, None, None, now)
    assert last.halt_length(cutover.HALT) == timedelta(seconds=halted)
