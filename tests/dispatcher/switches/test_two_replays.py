"""A reader of another DAG that is owed retained events of two versions at once: its owner went there and back."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from dispatcher.db.pool import transaction
from dispatcher.events import replay as replay_module
from tests.dispatcher.builders import Source
from tests.dispatcher.changing import CHANGED, PIPELINE, Fleet, deploy, served
from tests.dispatcher.in_process import InProcess

READER = """\
dag: reader
jobs:
  mine: {operator: splitter, inputs: {copies: {}}, outputs: {mine: {storage: none}}}
"""
OWED = "select count(*) from subscription join job_version using (job_version_id) where dag = 'reader' and not replayed"
HALT = "update dag set releases_held_until = clock_timestamp() + interval '1 minute' where dag = 'chain'"
OWN = ("copies", "echo", "apart")


@pytest.fixture(autouse=True)
def one_event_a_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay_module, "PAGE", 1)


@asynccontextmanager
async def _behind(dispatcher: InProcess) -> AsyncIterator[None]:
    """Meanwhile the reader's replays get no turn: its row is another one's."""
    async with transaction(dispatcher.pool) as connection:
        await connection.execute("select job from job_version where dag = 'reader' for no key update")
        yield


async def _had(dispatcher: InProcess) -> list[tuple[int, str]]:
    """Scopes of the reader's tasks, and of which dataset version each was."""
    rows = await dispatcher.rows(
        "select t.scope_first, e.dataset_version_id::text from any_task t join job_version j using (job_version_id)"
        " join event e using (event_id) where j.job = 'mine' order by 1"
    )
    return [(int.from_bytes(key, "big") - 2**63, version_id) for key, version_id in rows]


async def _switched(dispatcher: InProcess, fleet: Fleet, document: str) -> str:
    """The owner serves another version, of which the reader has replayed nothing yet; answers the one of `copies`."""
    before = (await served(dispatcher))["copies"]
    async with _behind(dispatcher):
        await deploy(dispatcher, document)
        await fleet.catch_up(*OWN)
    after = (await served(dispatcher))["copies"]
    assert after != before
    return after


async def _first_switch(dispatcher: InProcess, source: Source, fleet: Fleet) -> str:
    """The second version makes scopes 3 and 4 before it is served, and the first one only when it comes back."""
    await source.publish([1, 2])
    await fleet.work()
    await dispatcher.deploy(READER)
    await fleet.catch_up()
    before = (await served(dispatcher))["copies"]
    async with _behind(dispatcher):
        await deploy(dispatcher, CHANGED)
        await source.publish([3, 4])
        await dispatcher.run(HALT)
        await fleet.catch_up(*OWN)
    after = (await served(dispatcher))["copies"]
    assert after != before
    return after


@pytest.mark.parametrize("pages", range(6))
async def test_two_replays_pass_by_no_scope_on_the_strength_of_each_other(
    dispatcher: InProcess, source: Source, pages: int
) -> None:
    """So many pages of the one are done when the other comes."""
    fleet = Fleet(dispatcher)
    await _first_switch(dispatcher, source, fleet)
    for _ in range(pages):
        await dispatcher.replay()
    await _switched(dispatcher, fleet, PIPELINE)
    assert await dispatcher.value(OWED) == (2 if pages < 5 else 1)
    while await dispatcher.replay():
        pass
    assert [number for number, _ in await _had(dispatcher)] == [1, 2, 3, 4]


async def test_what_is_read_now_is_replayed_before_what_is_not_any_more(dispatcher: InProcess, source: Source) -> None:
    """There, back, and there again: of what both versions have, the reader gets the one that is served."""
    fleet = Fleet(dispatcher)
    second = await _first_switch(dispatcher, source, fleet)
    first = await _switched(dispatcher, fleet, PIPELINE)
    assert await _switched(dispatcher, fleet, CHANGED) == second
    assert await dispatcher.value(OWED) == 2
    while await dispatcher.replay():
        pass
    assert await _had(dispatcher) == [(1, first), (2, first), (3, second), (4, second)]
