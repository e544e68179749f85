"""PlanDag against a real database: what is told of each job, what it is counted from, and what is kept."""

import grpc
import pytest

from dispatcher.db.pool import transaction
from dispatcher.deploy import plans
from kernel.errors import TraceError, from_rpc_error
from kernel.ids import new_id
from tests.dispatcher.builders import CHAIN, READER, Source, Worker, artifact, at, event, success
from tests.dispatcher.in_process import InProcess
from tests.dispatcher.test_deploy import CODED
from traceapi.control.v1 import dag_service_pb2 as pb
from traceapi.control.v1.plan_pb2 import JobChange, PlannedJob
from traceapi.types.v1.dag_pb2 import DagSpec
from traceapi.worker.v1.emit_pb2 import EmitItem

WIDER = CHAIN.replace("size: 10", "size: 20")
SORTED = CHAIN.replace("outputs: {copies: {schema", "outputs: {copies: {sort: [number], schema")


async def plan(dispatcher: InProcess, document: str, *, no_rematerialize: bool = False) -> pb.PlanDagResponse:
    source = pb.DagDocument(text=document, file_name="dag.yaml")
    return await dispatcher.dags.PlanDag(pb.PlanDagRequest(document=source, no_rematerialize=no_rematerialize))


async def refused(dispatcher: InProcess, document: str, *, no_rematerialize: bool = False) -> TraceError:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await plan(dispatcher, document, no_rematerialize=no_rematerialize)
    return from_rpc_error(raised.value)


def changes(of: pb.PlanDagResponse) -> list[tuple[str, str, int]]:
    """Job, change, tasks, in the plan's order."""
    return [
        (job.job, JobChange.Name(job.change).removeprefix("JOB_CHANGE_").lower(), job.task_count) for job in of.jobs
    ]


def job_of(of: pb.PlanDagResponse, name: str) -> PlannedJob:
    return next(job for job in of.jobs if job.job == name)


async def copy_blocks(dispatcher: InProcess, *numbers: int) -> None:
    """Runs tasks of the job `copies`."""
    worker = Worker(dispatcher)
    await dispatcher.release()
    for number in numbers:
        lease = worker.lease(await worker.claim_one(await dispatcher.task_of("chain", "copies", number)))
        file = await artifact(dispatcher, "copies", at(number))
        item = EmitItem(tasks=[lease], artifacts=[file], events=[event("copies", at(number), artifact=0)])
        await worker.end([item], [success(lease, events=1)])


async def test_a_first_version_is_planned_before_there_is_anything(dispatcher: InProcess) -> None:
    planned = await plan(dispatcher, CHAIN)
    assert changes(planned) == [("blocks", "added", 1), ("copies", "added", 0), ("ranges", "added", 0)]
    assert (planned.dag, planned.base_version, planned.actor) == ("chain", 0, "user:tester")
    assert planned.rollback_estimate.seconds == 0
    assert planned.HasField("rollback_estimate")
    assert await dispatcher.value("select count(*) from dag") == 0


async def test_a_change_is_told_by_field_and_counted_from_what_stays(dispatcher: InProcess, source: Source) -> None:
    await source.publish([1, 2, 3])
    await source.publish([4, 5])
    planned = await plan(dispatcher, WIDER)
    assert changes(planned) == [("blocks", "shared", 0), ("copies", "shared", 0), ("ranges", "changed", 5)]
    (change,) = job_of(planned, "ranges").field_changes
    assert (change.path, change.before, change.after, change.materialization) == ("config.size", "10", "20", True)
    assert (planned.base_version, planned.task_count) == (1, 5)
    active = (await dispatcher.dags.GetDag(pb.GetDagRequest(dag="chain"))).deployment
    by_job = {job.job: job.job_version_id for job in active.jobs}
    assert {job.job: job.job_version_id for job in planned.jobs} == {**by_job, "ranges": ""}
    assert len({job.fingerprint for job in planned.jobs}) == 3


async def test_what_is_downstream_is_counted_from_what_there_is_now(dispatcher: InProcess, source: Source) -> None:
    await source.publish([1, 2, 3])
    planned = await plan(dispatcher, CHAIN.replace("cursor: number}", "cursor: number, limit: 10}"))
    assert changes(planned) == [("blocks", "changed", 1), ("copies", "downstream", 3), ("ranges", "downstream", 3)]
    assert job_of(planned, "copies").task_count_estimated
    assert not job_of(planned, "blocks").task_count_estimated


async def test_what_only_runs_otherwise_is_shared_and_said(dispatcher: InProcess, source: Source) -> None:
    await source.publish([1, 2, 3])
    planned = await plan(dispatcher, CHAIN.replace("max_attempts: 3", "max_attempts: 5, timeout: 1h"))
    assert {job.change for job in planned.jobs} == {JobChange.JOB_CHANGE_SHARED}
    assert planned.task_count == 0
    found = {(change.path, change.before, change.after) for change in job_of(planned, "copies").field_changes}
    assert found == {("execution.max_attempts", "3", "5"), ("execution.timeout", "300s", "3600s")}
    assert not any(change.materialization for job in planned.jobs for change in job.field_changes)


async def test_removed_jobs_and_those_who_read_them_are_named(dispatcher: InProcess, source: Source) -> None:
    await dispatcher.deploy(READER)
    lines = CHAIN.splitlines(keepends=True)
    without_copies = "".join(lines[: next(n for n, line in enumerate(lines) if line.startswith("  copies:"))])
    planned = await plan(dispatcher, without_copies)
    assert changes(planned)[-1] == ("copies", "removed", 0)
    assert list(planned.affected_reader_dags) == []
    moved = await plan(dispatcher, CHAIN.replace("cursor: number}", "cursor: number, limit: 10}"))
    assert list(moved.affected_reader_dags) == ["reader"]


async def test_time_comes_from_history_and_is_unset_without_one(dispatcher: InProcess, source: Source) -> None:
    await source.publish(list(range(1, 11)))
    before = await plan(dispatcher, SORTED)
    assert not job_of(before, "copies").HasField("estimate")
    assert not before.HasField("estimate")
    assert not before.HasField("rollback_estimate"), "what would have to catch up has no history either"
    await copy_blocks(dispatcher, 1, 2, 3, 4)
    await dispatcher.run("update attempt set started_at = ended_at - interval '2 s' - random() * interval '0.1 s'")
    for kept in (False, True):
        if kept:
            await dispatcher.keep()
        planned = await plan(dispatcher, SORTED)
        copies = job_of(planned, "copies")
        assert (copies.change, copies.task_count) == (JobChange.JOB_CHANGE_CHANGED, 10)
        assert 20.0 <= copies.estimate.ToNanoseconds() / 1e9 <= 21.0
        assert 0 < copies.estimate_error.ToNanoseconds() / 1e9 < 2.0
        assert planned.estimate == copies.estimate
        # Ten events came within the hour, so as many tasks for each hour.
        assert 20.0 <= planned.rollback_estimate.ToNanoseconds() / 1e9 <= 21.0


async def test_tasks_run_at_once_as_far_as_job_and_queue_allow(dispatcher: InProcess, source: Source) -> None:
    await source.publish(list(range(1, 11)))
    await copy_blocks(dispatcher, 1, 2)
    await dispatcher.run("update attempt set started_at = ended_at - interval '2 s'")
    limited = SORTED.replace(
        "    inputs: {blocks: {}}\n", "    execution: {max_concurrency: 5}\n    inputs: {blocks: {}}\n"
    )
    assert job_of(await plan(dispatcher, limited), "copies").estimate.seconds == 4
    await dispatcher.run(
        "insert into queue_settings values ('default', 2, 60, 30, 10, 1, 'tester') on conflict do nothing"
    )
    assert job_of(await plan(dispatcher, limited), "copies").estimate.seconds == 10


async def test_a_run_of_an_ordered_job_counts_once_for_all_of_its_tasks(dispatcher: InProcess, source: Source) -> None:
    await source.publish(list(range(1, 6)))
    worker = Worker(dispatcher)
    await dispatcher.release()
    run = await worker.claim_run(await dispatcher.task_of("chain", "ranges", 1))
    await worker.complete(*(success(lease, stream=run.stream) for lease in worker.leases(run)))
    await dispatcher.run("update attempt set started_at = ended_at - interval '5 s'")
    ranges = job_of(await plan(dispatcher, WIDER), "ranges")
    assert (ranges.task_count, ranges.estimate.seconds) == (5, 5)


async def test_a_job_version_that_ran_before_is_reused_for_what_it_missed(
    dispatcher: InProcess, source: Source
) -> None:
    await source.publish([1, 2, 3])
    fingerprint = job_of(await plan(dispatcher, SORTED), "copies").fingerprint
    job_version_id = new_id()
    await dispatcher.run(
        "insert into job_version (job_version_id, dag, job, kind, operator, ordered, fingerprint, canon_version)"
        " values (%s, 'chain', 'copies', 'operator', 'sql', false, %s, 1)",
        job_version_id,
        fingerprint,
    )
    assert job_of(await plan(dispatcher, SORTED), "copies").change == JobChange.JOB_CHANGE_CHANGED, "it never ran"
    await dispatcher.run(
        "insert into subscription (job_version_id, input_version_id, from_number, to_number, replayed)"
        " select %s, dataset_version_id, 0, 1, true from pointer where dataset_id = 'blocks'",
        job_version_id,
    )
    await source.publish([4, 5])
    copies = job_of(await plan(dispatcher, SORTED), "copies")
    assert (copies.change, copies.job_version_id) == (JobChange.JOB_CHANGE_REUSED, job_version_id)
    assert (copies.task_count, copies.task_count_estimated) == (2, False)
    assert [change.path for change in copies.field_changes] == ["outputs.copies.sort"]


async def test_a_plan_is_kept_as_it_was_answered_and_is_on_record(dispatcher: InProcess, source: Source) -> None:
    planned = await plan(dispatcher, WIDER)
    async with transaction(dispatcher.pool) as connection:
        stored = await plans.get_plan(connection, planned.plan_id)
        assert await plans.get_plan(connection, new_id()) is None
    assert stored is not None
    assert pb.PlanDagResponse.FromString(stored.content) == planned
    assert DagSpec.FromString(stored.spec).jobs["ranges"].config["size"] == 20
    active = (await dispatcher.dags.GetDag(pb.GetDagRequest(dag="chain"))).deployment
    assert (stored.dag, stored.base_version_id, stored.bundles) == ("chain", active.deployment_id, {})
    assert (stored.actor, stored.no_rematerialize) == ("user:tester", False)
    recorded = "select subject, plan_id::text from audit where method = 'DagService.PlanDag'"
    assert await dispatcher.rows(recorded) == [("chain", planned.plan_id)]
    assert await dispatcher.value("select count(*) from dag_version") == 1


async def test_plans_that_are_too_old_go(dispatcher: InProcess) -> None:
    old = await plan(dispatcher, CHAIN)
    await dispatcher.run("update plan set created_at = created_at - interval '31 days'")
    young = await plan(dispatcher, CHAIN)
    assert await dispatcher.rows("select plan_id::text from plan") == [(young.plan_id,)]
    assert young.plan_id != old.plan_id


async def test_taking_over_needs_a_job_of_which_only_the_strategy_changed(
    dispatcher: InProcess, source: Source
) -> None:
    error = await refused(dispatcher, WIDER, no_rematerialize=True)
    assert error.reason_name == "INVALID_REQUEST"
    assert "execution_strategy" in error.message
    stated = CHAIN.replace("copies:\n", "copies:\n    execution_strategy: per_update\n")
    planned = await plan(dispatcher, stated, no_rematerialize=True)
    assert (list(planned.taken_over_jobs), planned.actor, planned.task_count) == (["copies"], "user:tester", 0)
    recorded = "select details ->> 'taken_over_jobs' from audit where method = 'DagService.PlanDag'"
    assert await dispatcher.rows(recorded) == [('["copies"]',)]
    assert not (await plan(dispatcher, stated)).taken_over_jobs


async def test_what_cannot_be_deployed_is_not_planned(dispatcher: InProcess) -> None:
    assert (await refused(dispatcher, CHAIN + "unknown: 1\n")).reason_name == "INVALID_DOCUMENT"
    assert (await refused(dispatcher, CODED)).reason_name == "BUNDLE_MISSING"
    assert await dispatcher.value("select count(*) from plan") == 0


async def test_events_are_counted_where_they_are_published(dispatcher: InProcess, source: Source) -> None:
    item = await source.item([1, 2, 3])
    await source.worker.emit(item)
    await source.worker.emit(item)
    await copy_blocks(dispatcher, 1, 2)
    counted = await dispatcher.rows(
        "select v.dataset_id, h.event_count, (select sum(p.event_count) from publication p"
        " where p.dataset_version_id = h.dataset_version_id), (select count(*) from event e"
        " where e.dataset_version_id = h.dataset_version_id)"
        " from dataset_head h join dataset_version v using (dataset_version_id) where h.number > 0 order by 1"
    )
    assert counted == [("blocks", 3, 3, 3), ("copies", 2, 2, 2)]
