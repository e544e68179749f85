"""Makes a plan: asks the database, compares, counts, estimates. Changes nothing; keeping the plan is another step.

Statements are as many whatever the size of the DAG. What they see may move between them: a plan is about what was
active when it was begun, and who deploys it is refused where that has moved.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from dispatcher.audit import store as audit
from dispatcher.audit.entries import Action, Entry
from dispatcher.dag.model import JobKind, ResolvedJob
from dispatcher.db.pool import Pool, transaction
from dispatcher.deploy import plans
from dispatcher.deploy.comparison import BaseJob, Job, changes, differences
from dispatcher.deploy.deployable import Deployable
from dispatcher.deploy.estimates import Estimate, History, Room, estimate, parallelism, total
from dispatcher.deploy.ownership import require_owned
from dispatcher.deploy.planning import Events, Outline, Tasks, count_tasks, outline
from dispatcher.deploy.plans import Base, StoredPlan
from kernel.errors import TraceError, Violation
from traceapi.types.v1.dag_pb2 import DagSpec
from traceapi.types.v1.errors_pb2 import ErrorReason

_HOUR = 3600.0


@dataclass(frozen=True, slots=True)
class Wish:
    """Who would deploy what."""

    deployable: Deployable
    no_rematerialize: bool
    actor: str


@dataclass(frozen=True, slots=True)
class PlannedJob:
    """A job with what becomes of it, and what that takes."""

    job: Job
    tasks: Tasks
    estimate: Estimate | None


@dataclass(frozen=True, slots=True)
class Plan:
    """What a deploy would do. `rollback_seconds` is None where it is not known."""

    dag: str
    base: Base
    jobs: Sequence[PlannedJob]
    estimate: Estimate | None
    affected_reader_dags: Sequence[str]
    rollback_seconds: float | None
    taken_over_jobs: Sequence[str]
    actor: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class _Measures:
    events: Events
    rates: Mapping[str, float]
    readers: Sequence[str]
    rooms: Mapping[str, Room]


async def make_plan(pool: Pool, wish: Wish) -> Plan:
    """Raises DATASET_OWNED, and INVALID_REQUEST where `no_rematerialize` has nothing to take over."""
    deployable = wish.deployable
    async with transaction(pool) as connection:
        await require_owned(connection, deployable)
        base = await plans.planning_base(connection, deployable.name)
        jobs = await plans.base_jobs(connection, base.dag_version_id) if base.dag_version_id else {}
        other = {
            name: key for name, key in deployable.version_keys.items() if name not in jobs or jobs[name].key != key
        }
        built = await plans.built_jobs(connection, deployable.name, other)
    before = DagSpec.FromString(base.spec)
    taken_over = _taken_over(deployable, before, jobs) if wish.no_rematerialize else []
    found = await asyncio.to_thread(differences, deployable, before, jobs)
    of = outline(deployable, jobs, built, changes(deployable, jobs, built, found))
    measures = await _measure(pool, of)
    tasks = count_tasks(of, measures.events)
    histories = await _histories(pool, of, tasks, measures)
    resolved = {job.name: job for job in deployable.dag.jobs}
    planned = [
        PlannedJob(job, tasks.get(job.job, Tasks()), _estimate(resolved.get(job.job), tasks, histories, measures))
        for job in of.jobs
    ]
    return Plan(
        dag=deployable.name,
        base=base,
        jobs=planned,
        estimate=total(each.estimate for each in planned),
        affected_reader_dags=measures.readers,
        rollback_seconds=_rollback_seconds(of, histories, measures),
        taken_over_jobs=taken_over,
        actor=wish.actor,
        created_at=base.now,
    )


async def keep_plan(pool: Pool, wish: Wish, plan: Plan, plan_id: str, content: bytes) -> None:
    """Stores the plan as it is answered, on record."""
    deployable = wish.deployable
    stored = StoredPlan(
        plan_id=plan_id,
        dag=plan.dag,
        base_version_id=plan.base.dag_version_id,
        spec=deployable.spec,
        spec_digest=deployable.digest,
        bundles=deployable.bundles,
        no_rematerialize=wish.no_rematerialize,
        content=content,
        actor=plan.actor,
        created_at=plan.created_at,
    )
    async with transaction(pool) as connection:
        await plans.insert_plan(connection, stored)
        details = {
            "base_version": plan.base.version,
            "spec_sha256": deployable.digest.hex(),
            "taken_over_jobs": list(plan.taken_over_jobs),
        }
        entry = Entry(Action.PLAN, plan.actor, plan.dag, [plan.dag], details, plan_id, plan.base.dag_version_id)
        await audit.record(connection, entry)


def _taken_over(deployable: Deployable, before: DagSpec, base: Mapping[str, BaseJob]) -> list[str]:
    """Jobs of which only `execution_strategy` is written otherwise. Every strategy that is accepted has one canonical
    form, so their versions are those of the active version anyway."""
    found = [
        name
        for name, job in sorted(deployable.dag.spec.jobs.items())
        if name in base
        and base[name].key == deployable.version_keys[name]
        and before.jobs[name].execution_strategy != job.execution_strategy
    ]
    if not found:
        message = f"no job of {deployable.name} differs in its execution_strategy alone, so nothing can be taken over"
        raise TraceError(
            ErrorReason.ERROR_REASON_INVALID_REQUEST, message, violations=[Violation("no_rematerialize", message)]
        )
    return found


async def _measure(pool: Pool, of: Outline) -> _Measures:
    triggering = {read.dataset_version_id for job in of.replaced for read in job.triggers}
    queues = {job.execution.queue for job in of.deployable.dag.jobs} | {job.queue for job in of.replaced}
    async with transaction(pool) as connection:
        return _Measures(
            events=Events(
                counts=await plans.event_counts(connection, of.version_ids),
                missed=await plans.missed_events(connection, of.intervals),
            ),
            rates=await plans.event_rates(connection, triggering),
            readers=await plans.reader_dags(connection, of.deployable.name, of.changed_datasets),
            rooms=await plans.rooms(connection, queues),
        )


async def _histories(pool: Pool, of: Outline, tasks: Mapping[str, Tasks], measures: _Measures) -> Mapping[str, History]:
    wanted = {name for name, found in tasks.items() if found.count}
    wanted |= {job.job for job in of.replaced if _rate(job, measures)}
    async with transaction(pool) as connection:
        return await plans.histories(connection, of.deployable.name, wanted)


def _estimate(
    job: ResolvedJob | None, tasks: Mapping[str, Tasks], histories: Mapping[str, History], measures: _Measures
) -> Estimate | None:
    if job is None or job.kind is not JobKind.OPERATOR:
        return None
    limit = job.execution.max_concurrency if job.execution.HasField("max_concurrency") else None
    at_once = 1 if job.ordered else parallelism(limit, measures.rooms.get(job.execution.queue))
    return estimate(tasks[job.name].count, histories.get(job.name), at_once)


def _rate(job: BaseJob, measures: _Measures) -> float:
    """Tasks that the job gets a second."""
    return sum(measures.rates.get(read.dataset_version_id, 0.0) for read in job.triggers)


def _rollback_seconds(of: Outline, histories: Mapping[str, History], measures: _Measures) -> float | None:
    """How long what is replaced needs for an hour's events, if it came back."""
    seconds = 0.0
    for job in of.replaced:
        tasks = _rate(job, measures) * _HOUR
        if tasks == 0:
            continue
        if job.job not in histories:
            return None
        seconds += tasks * histories[job.job].mean / parallelism(job.max_concurrency, measures.rooms.get(job.queue))
    return seconds
