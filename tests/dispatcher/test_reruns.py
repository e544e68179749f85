"""What was done is run again: further tasks of the same events, whose outputs take the place of what was there."""

import asyncio
from typing import Any

import grpc
import pytest
import pytest_asyncio

from dispatcher.deploy import rerun_rows, reruns
from kernel.errors import from_rpc_error
from kernel.ids import new_id
from tests.dispatcher.builders import Source, Worker, failure, int64, start_source, success
from tests.dispatcher.changing import CHANGED, PIPELINE, Fleet, deploy
from tests.dispatcher.in_process import InProcess
from traceapi.control.v1 import source_service_pb2 as api
from traceapi.control.v1 import task_service_pb2
from traceapi.control.v1.rerun_pb2 import RerunEffect
from traceapi.types.v1.errors_pb2 import ErrorReason
from traceapi.types.v1.scope_pb2 import CursorRange
from traceapi.types.v1.task_pb2 import TASK_ORIGIN_BACKFILL, TASK_STATE_QUEUED

ORDERED = PIPELINE + (
    "  runs: {operator: aggregator, inputs: {copies: {}}, config: {size: 10}, outputs: {runs: {storage: none}}}\n"
    "  newest: {virtual: {sql: from copies select max(number) n}, outputs: {newest: {}}}\n"  # made at query time
)
APPENDING = PIPELINE.replace(
    "copies: {schema: {number: int64}}", "copies: {schema: {number: int64}, update: append, unique_key: [number]}"
)

FOLLOWED_BY_APPENDING = APPENDING.replace(
    "inputs: {blocks: {}}\n    outputs: {copies", "inputs: {parts: {}, blocks: {trigger: false}}\n    outputs: {copies"
)


async def _start(dispatcher: InProcess, document: str = PIPELINE) -> Source:
    """The pipeline over five blocks, all done."""
    await deploy(dispatcher, document)
    source = await start_source(dispatcher)
    await source.publish([1, 2, 3, 4, 5])
    await Fleet(dispatcher).work("copies", "echo", "apart")
    return source


@pytest_asyncio.fixture
async def pipeline(dispatcher: InProcess) -> Source:
    return await _start(dispatcher)


async def backfill(dispatcher: InProcess, job: str, first: int, last: int, **fields: Any) -> api.BackfillJobResponse:
    request = api.BackfillJobRequest(
        job=job,
        range=CursorRange(first=int64(first), last=int64(last)),
        **{"dag": "chain", "request_id": new_id(), **fields},
    )
    return await dispatcher.sources.BackfillJob(request)


async def rerun(dispatcher: InProcess, **fields: Any) -> task_service_pb2.RerunTasksResponse:
    chosen = task_service_pb2.TaskFilter(**fields)
    return await dispatcher.tasks.RerunTasks(task_service_pb2.RerunTasksRequest(filter=chosen, request_id=new_id()))


async def tasks_at(dispatcher: InProcess, job: str, number: int) -> list[tuple[int, str, str]]:
    """(revision, origin, state) of a job's tasks for a block, by revision."""
    return [
        (revision, origin, state)
        for revision, origin, state in await dispatcher.rows(
            "select t.revision, t.origin::text, t.state::text from any_task t join job_version j using (job_version_id)"
            " where j.job = %s and t.scope_first = %s order by t.revision, t.task_id",
            job,
            (number + 2**63).to_bytes(8, "big"),
        )
    ]


async def visible(dispatcher: InProcess, dataset: str) -> list[tuple[int, int]]:
    """(block, revision) of the files that a reader sees now."""
    rows = await dispatcher.rows(
        "select a.scope_first, a.revision from artifact a join pointer p using (dataset_version_id)"
        " where p.dataset_id = %s and a.removed_publication_id is null order by 1",
        dataset,
    )
    return [(int.from_bytes(key, "big") - 2**63, revision) for key, revision in rows]


async def watermark(dispatcher: InProcess, dataset: str) -> int:
    key = await dispatcher.value(
        "select w.cursor_key from watermark w join pointer p using (dataset_version_id) where p.dataset_id = %s",
        dataset,
    )
    return int.from_bytes(key, "big") - 2**63


def refused(caught: pytest.ExceptionInfo[grpc.aio.AioRpcError]) -> tuple[str, str]:
    error = from_rpc_error(caught.value)
    return ErrorReason.Name(error.reason).removeprefix("ERROR_REASON_"), error.message


@pytest.mark.usefixtures("pipeline")
async def test_a_backfill_replaces_what_was_there_and_downstream_follows(dispatcher: InProcess) -> None:
    made = await backfill(dispatcher, "copies", 2, 4)
    assert (made.task_count, made.next_page_token, made.dag) == (3, "", "chain")
    assert await tasks_at(dispatcher, "copies", 3) == [(0, "live", "succeeded"), (1, "backfill", "queued")]
    assert await tasks_at(dispatcher, "apart", 3) == [(0, "live", "succeeded")]
    done = await Fleet(dispatcher).work("copies", "echo", "apart")
    assert sorted(done) == ["copies"] * 3 + ["echo"] * 3
    assert await visible(dispatcher, "copies") == [(1, 0), (2, 1), (3, 1), (4, 1), (5, 0)]
    assert await tasks_at(dispatcher, "echo", 3) == [(0, "live", "succeeded"), (1, "backfill", "succeeded")]
    assert await tasks_at(dispatcher, "echo", 1) == [(0, "live", "succeeded")]


@pytest.mark.usefixtures("pipeline")
async def test_each_rerun_of_a_scope_has_the_next_revision(dispatcher: InProcess) -> None:
    for revision in (1, 2, 3):
        assert (await backfill(dispatcher, "copies", 3, 3)).task_count == 1
        await Fleet(dispatcher).work("copies", "echo")
        await dispatcher.keep()
        assert await visible(dispatcher, "copies") == [(1, 0), (2, 0), (3, revision), (4, 0), (5, 0)]
    assert [row[0] for row in await tasks_at(dispatcher, "echo", 3)] == [0, 1, 2, 3]


@pytest.mark.usefixtures("pipeline")
async def test_what_is_made_later_has_the_higher_revision_wherever_it_began(dispatcher: InProcess) -> None:
    # Downstream was run again twice; then what is upstream of it is, for the first time.
    for _ in range(2):
        await backfill(dispatcher, "echo", 3, 3)
        await Fleet(dispatcher).work("echo")
    await backfill(dispatcher, "copies", 3, 3)
    await Fleet(dispatcher).work("copies", "echo")
    assert [row[0] for row in await tasks_at(dispatcher, "echo", 3)] == [0, 1, 2, 3]
    # And downstream once more, of what is newest upstream.
    assert (await backfill(dispatcher, "echo", 3, 3)).task_count == 1
    assert [row[0] for row in await tasks_at(dispatcher, "echo", 3)] == [0, 1, 2, 3, 4]


@pytest.mark.usefixtures("pipeline")
async def test_a_scope_whose_task_has_not_ended_is_left_out(dispatcher: InProcess) -> None:
    assert (await backfill(dispatcher, "copies", 2, 3)).task_count == 2
    assert (await backfill(dispatcher, "copies", 1, 5)).task_count == 3
    assert (await backfill(dispatcher, "copies", 1, 5)).task_count == 0


@pytest.mark.usefixtures("pipeline")
async def test_a_page_that_is_asked_for_again_makes_nothing(
    dispatcher: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reruns, "PAGE", 2)
    request_id = new_id()
    pages = [await backfill(dispatcher, "copies", 1, 5, request_id=request_id)]
    while token := pages[-1].next_page_token:
        pages.append(await backfill(dispatcher, "copies", 1, 5, request_id=request_id, page_token=token))
    assert [page.task_count for page in pages] == [2, 2, 1]
    await Fleet(dispatcher).work("copies", "echo")
    assert await backfill(dispatcher, "copies", 1, 5, request_id=request_id) == pages[0]
    again = await backfill(dispatcher, "copies", 1, 5, request_id=request_id, page_token=pages[1].next_page_token)
    assert again == pages[2]
    assert await dispatcher.value("select count(*) from any_task where revision > 1") == 0
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await backfill(dispatcher, "copies", 1, 4, request_id=request_id)
    assert refused(caught)[0] == "REQUEST_ID_REUSED"


@pytest.mark.usefixtures("pipeline")
async def test_two_reruns_at_once_take_different_scopes_and_no_revision_twice(dispatcher: InProcess) -> None:
    # One has counted its scopes and not committed; the other waits for it, and then finds them unfinished.
    async with dispatcher.pool.connection() as connection, connection.transaction():
        await connection.execute("select pg_advisory_xact_lock_shared(%s, hashtext('chain'))", (0x7472,))
        calls = [asyncio.create_task(backfill(dispatcher, "copies", 1, 4)) for _ in range(2)]
        await dispatcher.until_waiting_or_done(calls[0])
        await dispatcher.until_waiting_or_done(calls[1])
        assert not any(call.done() for call in calls), "a re-run changed tasks beside an acceptance"
    counts = sorted([(await call).task_count for call in calls])
    assert counts == [0, 4]
    assert await dispatcher.rows("select revision, count(*) from task where origin = 'backfill' group by 1") == [(1, 4)]


@pytest.mark.usefixtures("pipeline")
async def test_what_is_run_again_does_not_hold_the_watermark(dispatcher: InProcess, pipeline: Source) -> None:
    assert await watermark(dispatcher, "copies") == 5
    await backfill(dispatcher, "copies", 2, 3)
    await pipeline.publish([6])
    await dispatcher.run(
        "update task set state = 'succeeded', finished_at = clock_timestamp()"
        " where state = 'queued' and origin = 'live'"
    )
    await dispatcher.derive()
    assert await watermark(dispatcher, "copies") == 6


@pytest.mark.usefixtures("pipeline")
async def test_a_dry_run_counts_and_says_what_becomes_of_readers(dispatcher: InProcess) -> None:
    counted = await backfill(dispatcher, "copies", 2, 9, dry_run=True)
    assert counted.task_count == 4
    assert [(r.job, RerunEffect.Name(r.effect)) for r in counted.readers] == [("echo", "RERUN_EFFECT_FOLLOWS")]
    assert [(job.dag, job.job) for job in counted.jobs] == [("chain", "copies")]
    assert await dispatcher.value("select count(*) from task where origin = 'backfill'") == 0
    assert await dispatcher.value("select count(*) from rerun_page") == 0


async def test_an_ordered_reader_refuses_what_is_late_and_the_count_says_so(dispatcher: InProcess) -> None:
    await _start(dispatcher, ORDERED)
    counted = await backfill(dispatcher, "copies", 2, 2, dry_run=True)
    assert {r.job: RerunEffect.Name(r.effect) for r in counted.readers} == {
        "echo": "RERUN_EFFECT_FOLLOWS",
        "runs": "RERUN_EFFECT_REFUSES_LATE",
    }
    worker = Worker(dispatcher)
    await dispatcher.release()
    run = await worker.claim_run(await dispatcher.task_of("chain", "runs", 1))
    stream = run.stream
    assert await worker.complete(*[success(lease, 0, stream) for lease in worker.leases(run)]) == ["succeeded"] * 5
    await backfill(dispatcher, "copies", 2, 2)
    await Fleet(dispatcher).work("copies", "echo")
    await dispatcher.release()
    late = await dispatcher.value("select task_id::text from task where origin = 'backfill' and stream_key = ''")
    await worker.claim([late])
    assert (await tasks_at(dispatcher, "runs", 2))[-1] == (1, "backfill", "dead")


async def test_the_last_scope_of_an_ordered_reader_is_late_too(dispatcher: InProcess) -> None:
    """The operator would refuse it, attempt after attempt: it has folded the scope in."""
    await _start(dispatcher, ORDERED)
    worker = Worker(dispatcher)
    await dispatcher.release()
    run = await worker.claim_run(await dispatcher.task_of("chain", "runs", 1))
    await worker.complete(*[success(lease, 0, run.stream) for lease in worker.leases(run)])
    await backfill(dispatcher, "copies", 5, 5)
    await Fleet(dispatcher).work("copies", "echo")
    await dispatcher.release()
    late = await dispatcher.value("select task_id::text from task where origin = 'backfill' and stream_key = ''")
    await worker.claim([late])
    state = await dispatcher.rows("select state::text, attempt, reason from task where task_id = %s", late)
    assert state == [("dead", 0, "its ordered stream has done its scope, and cannot do it again")]


async def test_an_ordered_job_that_is_built_later_gets_the_last_revision_only(dispatcher: InProcess) -> None:
    await _start(dispatcher)
    await backfill(dispatcher, "copies", 2, 3)
    await Fleet(dispatcher).work("copies", "echo")
    await dispatcher.deploy(
        "dag: late\njobs:\n  spans: {operator: aggregator, inputs: {copies: {}}, config: {size: 10},"
        " outputs: {spans: {storage: none}}}\n  echoes: {operator: splitter, inputs: {copies: {}},"
        " outputs: {more: {storage: none}}}\n"
    )
    while await dispatcher.replay():
        pass
    assert [await tasks_at(dispatcher, "spans", n) for n in (1, 2)] == [
        [(0, "replay", "queued")],
        [(1, "replay", "queued")],
    ]
    assert [row[0] for row in await tasks_at(dispatcher, "echoes", 2)] == [0, 1]


@pytest.mark.parametrize(
    ("document", "job", "why"),
    [
        (PIPELINE, "blocks", "is no operator"),
        (ORDERED, "runs", "is ordered"),
        (APPENDING, "copies", "appends"),
    ],
)
async def test_what_cannot_be_run_again_is_refused_with_the_way_out(
    dispatcher: InProcess, document: str, job: str, why: str
) -> None:
    await deploy(dispatcher, document)
    for dry_run in (True, False):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await backfill(dispatcher, job, 1, 5, dry_run=dry_run)
        reason, message = refused(caught)
        assert reason in ("RERUN_REFUSED", "SCOPE_MISMATCH")
        assert why in message
        assert "deploy" in message


async def test_what_is_appended_to_downstream_is_not_written_twice(dispatcher: InProcess) -> None:
    await deploy(dispatcher, FOLLOWED_BY_APPENDING)
    for dry_run in (True, False):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await backfill(dispatcher, "apart", 1, 5, dry_run=dry_run)
        reason, message = refused(caught)
        assert reason == "RERUN_REFUSED"
        assert message.startswith("copies of chain follows, and appends")


@pytest.mark.usefixtures("pipeline")
async def test_names_and_bounds_that_are_mistyped_are_refused(dispatcher: InProcess) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await backfill(dispatcher, "copy", 1, 5)
    assert refused(caught) == ("JOB_NOT_FOUND", "chain has no job called copy; did you mean copies?")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await backfill(dispatcher, "copies", 1, 5, page_token="page")
    assert refused(caught)[0] == "INVALID_REQUEST"
    assert (await backfill(dispatcher, "copies", 1, 5, dag="", dry_run=True)).dag == "chain"


@pytest.mark.usefixtures("pipeline")
async def test_tasks_are_run_again_by_id_and_by_filter(dispatcher: InProcess) -> None:
    first = await dispatcher.task_of("chain", "copies", 1)
    await dispatcher.keep()
    assert (await rerun(dispatcher, task_ids=[first])).task_count == 1
    assert (await rerun(dispatcher, task_ids=[first])).task_count == 0, "its re-run has not ended"
    await Fleet(dispatcher).work("copies", "echo")
    assert (await rerun(dispatcher, dag="chain", job="copies")).task_count == 5
    await Fleet(dispatcher).work("copies", "echo")
    assert await visible(dispatcher, "copies") == [(1, 2), (2, 1), (3, 1), (4, 1), (5, 1)]


@pytest.mark.usefixtures("pipeline")
async def test_pages_do_not_run_again_what_the_pages_before_have_made(
    dispatcher: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though that has ended meanwhile, and its tasks come after all that there were."""
    monkeypatch.setattr(reruns, "PAGE", 2)
    chosen = task_service_pb2.TaskFilter(job="copies")
    request = task_service_pb2.RerunTasksRequest(filter=chosen, request_id=new_id())
    made = []
    for _ in range(6):
        answer = await dispatcher.tasks.RerunTasks(request)
        made.append(answer.task_count)
        if not answer.next_page_token:
            break
        request.page_token = answer.next_page_token
        await Fleet(dispatcher).work("copies", "echo")
    assert made == [2, 2, 1]


@pytest.mark.usefixtures("pipeline")
async def test_tasks_are_counted_in_pages_each_event_once(
    dispatcher: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rerun_rows, "COUNTED", 2)
    assert (await rerun(dispatcher, job="copies")).task_count == 5
    await Fleet(dispatcher).work("copies", "echo")
    await dispatcher.keep()
    counted = await dispatcher.tasks.RerunTasks(
        task_service_pb2.RerunTasksRequest(
            filter=task_service_pb2.TaskFilter(job="copies"), request_id=new_id(), dry_run=True
        )
    )
    assert counted.task_count == 5


@pytest.mark.usefixtures("pipeline")
async def test_answers_of_pages_are_kept_for_a_month(dispatcher: InProcess) -> None:
    await backfill(dispatcher, "copies", 1, 1)
    await backfill(dispatcher, "copies", 2, 2)
    await dispatcher.run(
        "update rerun_page set answered_at = answered_at - interval '31 days'"
        " where answered_at = (select min(answered_at) from rerun_page)"
    )
    await backfill(dispatcher, "copies", 3, 3)
    assert await dispatcher.value("select count(*) from rerun_page") == 2


async def test_a_dead_task_is_skipped_in_favour_of_its_rerun(dispatcher: InProcess) -> None:
    await deploy(dispatcher, PIPELINE + "defaults: {execution: {max_attempts: 1}}\n")
    source = await start_source(dispatcher)
    await source.publish([1])
    await dispatcher.release()
    worker = Worker(dispatcher)
    claimed = await worker.claim_one(await dispatcher.task_of("chain", "copies", 1))
    assert await worker.complete(failure(worker.lease(claimed))) == ["dead"]
    assert (await rerun(dispatcher, job="copies")).task_count == 1
    assert await tasks_at(dispatcher, "copies", 1) == [(0, "live", "skipped"), (1, "backfill", "queued")]
    await dispatcher.derive()
    assert (
        await dispatcher.rows(
            "select 1 from watermark w join pointer p using (dataset_version_id)"
            " where p.dataset_id = 'copies' and w.cursor_key >= %s",
            (1 + 2**63).to_bytes(8, "big"),
        )
        == []
    )


@pytest.mark.usefixtures("pipeline")
async def test_tasks_of_a_version_that_is_not_active_are_refused(dispatcher: InProcess) -> None:
    old = await dispatcher.task_of("chain", "copies", 1)
    await deploy(dispatcher, CHANGED)
    await Fleet(dispatcher).catch_up()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await rerun(dispatcher, task_ids=[old])
    reason, message = refused(caught)
    assert reason == "RERUN_REFUSED"
    assert "not of the active version" in message


@pytest.mark.usefixtures("pipeline")
async def test_a_rerun_is_audited_and_counted_by_its_origin(dispatcher: InProcess) -> None:
    await backfill(dispatcher, "copies", 1, 2)
    rows = await dispatcher.rows("select actor, subject, details from audit where method = 'SourceService.BackfillJob'")
    ((actor, subject, details),) = rows
    assert (actor, subject, details["task_count"]) == ("user:tester", "chain", 2)
    counts = await dispatcher.tasks.CountTasks(
        task_service_pb2.CountTasksRequest(dag="chain", origin=TASK_ORIGIN_BACKFILL)
    )
    assert [(c.job, c.state, c.count) for c in counts.counts] == [("copies", TASK_STATE_QUEUED, 2)]
