"""PlanDag: reads the document, makes the plan, keeps it as it is answered."""

from google.protobuf.duration_pb2 import Duration

from dispatcher.audit.entries import Action
from dispatcher.db.pool import Pool
from dispatcher.deploy.estimates import Estimate
from dispatcher.deploy.planner import Plan, PlannedJob, Wish, keep_plan, make_plan
from dispatcher.rpc import convert, documents
from dispatcher.rpc.faults import translated
from dispatcher.rpc.refusals import Asked, refusals_on_record
from kernel.ids import IdSource
from kernel.servers import current_actor
from traceapi.control.v1 import dag_service_pb2 as pb
from traceapi.control.v1 import plan_pb2

MAX_SECONDS = 10 * 365 * 86_400
"""What takes longer is as good as never, and a Duration has an end."""


async def plan_dag(pool: Pool, request: pb.PlanDagRequest, new_id: IdSource) -> pb.PlanDagResponse:
    async with refusals_on_record(pool, Asked(Action.PLAN)):
        deployable = await documents.deployable(pool, request)
    wish = Wish(deployable, request.no_rematerialize, str(current_actor()))
    async with refusals_on_record(pool, Asked(Action.PLAN, deployable.name)):
        with translated():
            plan = await make_plan(pool, wish)
            response = _response(plan, new_id())
            await keep_plan(pool, wish, plan, response.plan_id, response.SerializeToString(deterministic=True))
    return response


def _response(plan: Plan, plan_id: str) -> pb.PlanDagResponse:
    return pb.PlanDagResponse(
        plan_id=plan_id,
        dag=plan.dag,
        base_version=plan.base.version,
        jobs=[_job(planned) for planned in plan.jobs],
        affected_reader_dags=plan.affected_reader_dags,
        rollback_estimate=_duration(plan.rollback_seconds),
        task_count=sum(planned.tasks.count for planned in plan.jobs),
        estimate=_seconds(plan.estimate),
        estimate_error=_error(plan.estimate),
        taken_over_jobs=plan.taken_over_jobs,
        actor=plan.actor,
        created_time=convert.timestamp(plan.created_at),
    )


def _job(planned: PlannedJob) -> plan_pb2.PlannedJob:
    job = planned.job
    return plan_pb2.PlannedJob(
        job=job.job,
        change=plan_pb2.JobChange.Value(f"JOB_CHANGE_{job.change.name}"),
        field_changes=[
            plan_pb2.FieldChange(
                path=each.path, before=each.before, after=each.after, materialization=each.materialization
            )
            for each in job.field_changes
        ],
        job_version_id=job.job_version_id,
        task_count=planned.tasks.count,
        task_count_estimated=planned.tasks.estimated,
        estimate=_seconds(planned.estimate),
        estimate_error=_error(planned.estimate),
        fingerprint=job.key,
    )


def _seconds(estimate: Estimate | None) -> Duration | None:
    return _duration(estimate.seconds if estimate else None)


def _error(estimate: Estimate | None) -> Duration | None:
    return _duration(estimate.error if estimate else None)


def _duration(seconds: float | None) -> Duration | None:
    if seconds is None:
        return None
    nanos = round(min(seconds, MAX_SECONDS) * 10**9)
    return Duration(seconds=nanos // 10**9, nanos=nanos % 10**9)
