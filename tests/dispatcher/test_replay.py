"""A consumer that comes later is owed every retained event, in scope order, beside what arrives meanwhile."""

import pytest

from dispatcher.db.pool import transaction
from dispatcher.events import replay as replay_module
from tests.dispatcher.builders import Source, Worker, at, event, verdict
from tests.dispatcher.in_process import InProcess
from traceapi.worker.v1.emit_pb2 import EmitItem

LATE = """\
dag: late
jobs:
  spans: {operator: aggregator, inputs: {blocks: {}}, config: {size: 10}, outputs: {spans: {storage: none}}}
  echo: {operator: splitter, inputs: {blocks: {}}, outputs: {echoes: {storage: none}}}
"""


@pytest.fixture(autouse=True)
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay_module, "PAGE", 2)


async def _jobs(dispatcher: InProcess, job: str) -> list[tuple[int, str]]:
    rows = await dispatcher.rows(
        "select t.scope_first, t.origin::text from task t join job_version j using (job_version_id)"
        " where j.dag = 'late' and j.job = %s order by t.scope_first",
        job,
    )
    return [(int.from_bytes(key, "big") - 2**63, origin) for key, origin in rows]


async def test_retained_events_become_tasks_once(dispatcher: InProcess, source: Source) -> None:
    await source.publish([5, 1, 3])
    await dispatcher.deploy(LATE)
    await source.publish([7])
    assert await _jobs(dispatcher, "echo") == [(7, "live")]
    rounds = 0
    while await dispatcher.replay():
        rounds += 1
    assert rounds >= 4  # two jobs, two pages each
    for job in ("echo", "spans"):
        assert await _jobs(dispatcher, job) == [(1, "replay"), (3, "replay"), (5, "replay"), (7, "live")]


async def test_an_ordered_replay_does_not_let_later_scopes_pass(dispatcher: InProcess, source: Source) -> None:
    await source.publish([1, 2, 3, 4, 5])
    await dispatcher.deploy(LATE)
    await source.publish([6])
    head = await dispatcher.task_of("late", "spans", 6)
    assert head not in await dispatcher.release(), "what is live came before the replay had begun"
    seen: list[int] = []
    more = True
    while more or len(seen) < 6:
        more = bool(await dispatcher.replay())
        await dispatcher.release()
        response = await Worker(dispatcher).claim([head])
        for run in response.runs:
            seen += [task.scope.cursor.int64_value for task in run.tasks]
            await dispatcher.run(
                "update task set state = 'succeeded', finished_at = clock_timestamp(), lease_token_digest = null,"
                " stream_epoch = null where state = 'running' and stream_key = ''"
            )
            await dispatcher.run("update ordered_stream set lease_until = null, lease_token_digest = null")
    assert seen == [1, 2, 3, 4, 5, 6]


async def test_nothing_is_complete_before_its_replay_is(dispatcher: InProcess, source: Source) -> None:
    await source.publish([1, 2, 3])
    await dispatcher.derive()
    await dispatcher.deploy(LATE)
    assert await dispatcher.derive() == 0
    while await dispatcher.replay():
        await dispatcher.derive()
    await dispatcher.derive()
    watermark = await dispatcher.value(
        "select w.cursor_key from watermark w join pointer p using (dataset_version_id) where p.dataset_id = 'echoes'"
    )
    assert int.from_bytes(watermark, "big") - 2**63 == 0  # the first of its tasks is open


async def test_what_a_replayed_task_emits_is_a_replay_all_the_way_down(dispatcher: InProcess, source: Source) -> None:
    await source.publish([1])
    await dispatcher.deploy(LATE)
    while await dispatcher.replay():
        pass
    await dispatcher.release()
    worker = Worker(dispatcher)
    task_id = await dispatcher.task_of("late", "echo", 1)
    claimed = await worker.claim_one(task_id)
    item = EmitItem(tasks=[worker.lease(claimed)], events=[event("echoes", at(1))])
    assert [verdict(result) for result in await worker.emit(item)] == ["accepted"]
    rows = await dispatcher.rows(
        "select e.origin::text from event e join dataset_version v using (dataset_version_id)"
        " where v.dataset_id = 'echoes'"
    )
    assert rows == [("replay",)]


async def test_dags_take_turns(dispatcher: InProcess, source: Source) -> None:
    """A large rebuild, of many pages, does not make others wait until it is done."""
    await source.publish(range(1, 11))
    await dispatcher.deploy(LATE)
    await dispatcher.deploy(LATE.replace("late", "other").replace("spans", "pans").replace("echo", "replies"))
    replayer = replay_module.Replayer()
    for _ in range(4):
        async with transaction(dispatcher.pool) as connection:
            assert await replayer.page(connection) == 1
    made = (
        "select j.dag, count(*) from task t join job_version j using (job_version_id)"
        " where t.origin = 'replay' group by 1"
    )
    assert dict(await dispatcher.rows(made)) == {"late": 4, "other": 4}
