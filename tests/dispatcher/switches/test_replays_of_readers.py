"""A job of another DAG follows a pointer: it gets every scope, and what is served has the last word."""

import contextlib
import random
from collections.abc import AsyncIterator

import pytest

from dispatcher.db.pool import transaction
from dispatcher.events import replay
from tests.dispatcher.builders import Source
from tests.dispatcher.changing import CHANGED, PIPELINE, Fleet, deploy, roll_back, served
from tests.dispatcher.in_process import InProcess

READER = """\
dag: reader
jobs:
  mine: {operator: splitter, inputs: {copies: {}}, outputs: {mine: {storage: none}}}
"""
HALTED = "update dag set releases_held_until = clock_timestamp() + interval '1 minute' where dag = 'chain'"
OWNERS = ("copies", "echo", "apart")


@contextlib.asynccontextmanager
async def nothing_replayed_to_the_reader(dispatcher: InProcess) -> AsyncIterator[None]:
    """As if another dispatcher were at it, and slow."""
    async with transaction(dispatcher.pool) as connection:
        await connection.execute("select from job_version where job = 'mine' for no key update")
        yield


async def _tasks(dispatcher: InProcess) -> list[tuple[int, str]]:
    """The reader's scopes, and of which version of its input: `v1` the first."""
    rows = await dispatcher.rows(
        "select t.scope_first, 'v' || dense_rank() over (order by v.created_at, v.dataset_version_id)"
        " from any_task t join job_version j using (job_version_id) join event e using (event_id)"
        " join dataset_version v on v.dataset_version_id = e.dataset_version_id"
        " where j.job = 'mine' order by t.task_id"
    )
    return [(int.from_bytes(key, "big") - 2**63, version) for key, version in rows]


async def test_two_replays_do_not_pass_by_a_scope_on_the_strength_of_each_other(
    dispatcher: InProcess, source: Source, fleet: Fleet
) -> None:
    """The second version has scope 3 before the first one, which is served again before the reader's replay came by."""
    await source.publish([1, 2])
    await fleet.work()
    await dispatcher.deploy(READER)
    await fleet.catch_up()
    await fleet.catch_up()
    first = await served(dispatcher)
    async with nothing_replayed_to_the_reader(dispatcher):
        await deploy(dispatcher, CHANGED)
        await source.publish([3])
        await dispatcher.run(
            "update dag set releases_held_until = clock_timestamp() + interval '1 minute' where dag = 'chain'"
        )
        await fleet.catch_up(*OWNERS)
        await fleet.catch_up(*OWNERS)
        assert await served(dispatcher) != first
        await deploy(dispatcher, PIPELINE)
        await fleet.catch_up(*OWNERS)
        await fleet.catch_up(*OWNERS)
        assert (await served(dispatcher))["copies"] == first["copies"]
    await fleet.catch_up()
    assert {scope for scope, _ in await _tasks(dispatcher)} == {1, 2, 3}


async def test_what_is_not_served_any_more_is_not_replayed_to_a_reader(
    dispatcher: InProcess, source: Source, fleet: Fleet
) -> None:
    """And goes on when it is served again: it owes what its replay had not come to."""
    await source.publish([1])
    await fleet.work()
    await dispatcher.deploy(READER)
    await fleet.catch_up()
    async with nothing_replayed_to_the_reader(dispatcher):
        await deploy(dispatcher, CHANGED)
        await source.publish([2])
        await dispatcher.run(
            "update dag set releases_held_until = clock_timestamp() + interval '1 minute' where dag = 'chain'"
        )
        await fleet.catch_up(*OWNERS)
        await fleet.catch_up(*OWNERS)
        await roll_back(dispatcher)
    while await dispatcher.replay():
        pass
    assert await _tasks(dispatcher) == [(1, "v1")]
    assert not await dispatcher.value("select exists (select from replaying)")
    await roll_back(dispatcher, to=2)
    await fleet.catch_up()
    assert {scope for scope, _ in await _tasks(dispatcher)} == {1, 2}


@pytest.mark.parametrize("seed", range(8))
async def test_a_reader_gets_every_scope_whenever_the_pointer_moves(
    dispatcher: InProcess, source: Source, fleet: Fleet, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Replays go one event at a time, and switches come between any two of them."""
    monkeypatch.setattr(replay, "PAGE", 1)
    chance = random.Random(seed)
    await source.publish([1, 2])
    await fleet.work()
    await dispatcher.deploy(READER)
    last, document = 2, PIPELINE
    for _ in range(12):
        step = chance.choice(("publish", "switch", "switch", "back", "replay", "work", "work"))
        if step == "publish":
            last += 1
            await source.publish([last])
        elif step == "switch":
            document = CHANGED if document is PIPELINE else PIPELINE
            async with nothing_replayed_to_the_reader(dispatcher):
                await deploy(dispatcher, document)
                await fleet.catch_up(*OWNERS)
                await fleet.catch_up(*OWNERS)
        elif step == "back" and await dispatcher.value("select count(*) > 1 from activation where dag = 'chain'"):
            document = CHANGED if document is PIPELINE else PIPELINE
            await roll_back(dispatcher)
        elif step == "replay":
            for _ in range(chance.randrange(1, 4)):
                await dispatcher.replay()
        else:
            await fleet.catch_up(*chance.choice([OWNERS, ("mine",), ("copies", "mine")]))
    await fleet.catch_up()
    await fleet.catch_up()
    assert {scope for scope, _ in await _tasks(dispatcher)} == set(range(1, last + 1))


STORED = """\
dag: reader
jobs:
  mine:
    operator: sql
    config: {sql: select number from copies}
    inputs: {copies: {}}
    outputs: {mine: {schema: {number: int64}}}
  theirs: {operator: splitter, inputs: {mine: {}}, outputs: {theirs: {storage: none}}}
"""


@pytest.mark.parametrize("turns", [1, 2])
async def test_what_a_version_that_has_gone_left_undone_is_hidden_behind_what_is_served_though_it_ends_last(
    dispatcher: InProcess, source: Source, fleet: Fleet, turns: int
) -> None:
    """The task of the version that was taken back is in backoff, say; and its event goes on down the reader's jobs."""
    await source.publish([1])
    await fleet.work()
    await dispatcher.deploy(STORED)
    await fleet.catch_up()
    await deploy(dispatcher, CHANGED)
    await fleet.catch_up()
    await fleet.catch_up()
    await source.publish([2])
    await fleet.catch_up(*OWNERS)
    await roll_back(dispatcher)
    await fleet.catch_up(*OWNERS)
    await fleet.catch_up(*OWNERS)
    for _ in range(turns - 1):
        await roll_back(dispatcher, to=2)
        await roll_back(dispatcher, to=1)
    await dispatcher.release()
    waiting = await dispatcher.rows(
        "select t.task_id::text, t.scope_first from task t join job_version j using (job_version_id)"
        " where j.job = 'mine' and t.state = 'released' order by t.task_id"
    )
    (gone, key), (back, same) = waiting
    assert key == same
    for task_id in (back, gone):
        await fleet.do(task_id)
    visible = await dispatcher.rows(
        "select a.producer_task_id::text from artifact a join dataset_version v using (dataset_version_id)"
        " where v.dataset_id = 'mine' and a.removed_publication_id is null and a.scope_first = %s",
        key,
    )
    assert visible == [(back,)]
    newest = await dispatcher.rows(
        "select e.producer_task_id::text from task t join job_version j using (job_version_id)"
        " join event e using (event_id) where j.job = 'theirs' and t.scope_first = %s order by t.revision desc limit 1",
        key,
    )
    assert newest == [(back,)]
