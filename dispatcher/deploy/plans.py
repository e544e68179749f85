"""What the database says of a planned change, and plans as they were made. Maps and never commits."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from psycopg.types.json import Jsonb

from dispatcher.db.rows import Connection, one_row, rows
from dispatcher.db.statements import Statements
from dispatcher.deploy.comparison import BaseJob, BuiltJob, Read
from dispatcher.deploy.estimates import History, Room
from dispatcher.wakeups.queues import REPORT_SECONDS
from traceapi.types.v1.job_pb2 import JobDetails

_sql = Statements.load("dispatcher.deploy", "plans.sql")

KEPT = timedelta(days=30)
"""How long a plan can be deployed."""
_FRESH = timedelta(seconds=3 * REPORT_SECONDS)
_REMOVED_AT_ONCE = 100
_SAMPLES = 20_000
"""Attempts that are read for one plan, over all jobs."""
_MOST_OF_A_JOB, _LEAST_OF_A_JOB = 500, 20


@dataclass(frozen=True, slots=True)
class Base:
    """The active version when the plan is made; None, 0 and empty where there is none. `spec`: a serialized DagSpec."""

    dag_version_id: str | None
    version: int
    spec: bytes
    now: datetime


@dataclass(frozen=True, slots=True)
class StoredPlan:
    """A plan as it was made. `spec` is a serialized DagSpec, `content` a serialized PlanDagResponse."""

    plan_id: str
    dag: str
    base_version_id: str | None
    spec: bytes
    spec_digest: bytes
    bundles: Mapping[str, str]
    no_rematerialize: bool
    content: bytes
    actor: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class _JobRow:
    job: str
    job_version_id: str
    kind: str
    key: bytes
    queue: str
    max_concurrency: int | None
    details: bytes
    triggers: dict[str, str]


async def planning_base(connection: Connection, dag: str) -> Base:
    dag_version_id, version, spec, now = await one_row(connection, _sql.planning_base, {"dag": dag})
    return Base(dag_version_id, version or 0, spec or b"", now)


async def base_jobs(connection: Connection, dag_version_id: str) -> dict[str, BaseJob]:
    """Jobs of a DAG version, by name."""
    found = await rows(connection, _sql.base_jobs, _JobRow, dag_version_id=dag_version_id)
    return {row.job: _base_job(row) for row in found}


def _base_job(row: _JobRow) -> BaseJob:
    details = JobDetails.FromString(row.details)
    return BaseJob(
        job=row.job,
        job_version_id=row.job_version_id,
        kind=row.kind,
        key=row.key,
        queue=row.queue,
        max_concurrency=row.max_concurrency,
        bundles=dict(details.bundles),
        triggers=[Read(dataset_id, version_id) for dataset_id, version_id in sorted(row.triggers.items())],
        outputs={output.dataset_id: output.dataset_version_id for output in details.outputs},
    )


async def built_jobs(connection: Connection, dag: str, keys: Mapping[str, bytes]) -> dict[str, BuiltJob]:
    """Job versions under these keys that ran before, by job."""
    if not keys:
        return {}
    found = await rows(connection, _sql.built_jobs, BuiltJob, dag=dag, jobs=list(keys), keys=list(keys.values()))
    return {row.job: row for row in found}


async def event_counts(connection: Connection, version_ids: Collection[str]) -> dict[str, int]:
    """By dataset version."""
    cursor = await connection.execute(_sql.event_counts, {"version_ids": sorted(version_ids)})
    return dict(await cursor.fetchall())


async def missed_events(connection: Connection, intervals: Sequence[tuple[str, str]]) -> dict[tuple[str, str], int]:
    """By (job version, dataset version), where any were missed."""
    cursor = await connection.execute(
        _sql.missed_events,
        {
            "job_version_ids": [job_version_id for job_version_id, _ in intervals],
            "input_version_ids": [version_id for _, version_id in intervals],
        },
    )
    return {(job_version_id, version_id): events for job_version_id, version_id, events in await cursor.fetchall()}


async def event_rates(connection: Connection, version_ids: Collection[str]) -> dict[str, float]:
    """Events a second by dataset version, where any came within the last hour."""
    cursor = await connection.execute(_sql.event_rates, {"version_ids": sorted(version_ids)})
    return dict(await cursor.fetchall())


async def histories(connection: Connection, dag: str, jobs: Collection[str]) -> dict[str, History]:
    """By job, where any attempt succeeded. Of many jobs fewer attempts each are read."""
    if not jobs:
        return {}
    most = min(_MOST_OF_A_JOB, max(_LEAST_OF_A_JOB, _SAMPLES // len(jobs)))
    found = await rows(connection, _sql.histories, History, dag=dag, jobs=sorted(jobs), most=most)
    return {row.job: row for row in found}


async def rooms(connection: Connection, queues: Collection[str]) -> dict[str, Room]:
    found = await rows(connection, _sql.rooms, Room, queues=sorted(queues), fresh=_FRESH)
    return {row.queue: row for row in found}


async def reader_dags(connection: Connection, dag: str, dataset_ids: Sequence[str]) -> list[str]:
    """DAGs of others that read any of these datasets."""
    cursor = await connection.execute(_sql.reader_dags, {"dag": dag, "dataset_ids": list(dataset_ids)})
    return [row[0] for row in await cursor.fetchall()]


async def insert_plan(connection: Connection, plan: StoredPlan) -> None:
    """Stores it, and removes some that are too old."""
    await connection.execute(_sql.remove_old_plans, {"kept": KEPT, "limit": _REMOVED_AT_ONCE})
    await connection.execute(
        _sql.insert_plan,
        {
            "plan_id": plan.plan_id,
            "dag": plan.dag,
            "base_version_id": plan.base_version_id,
            "spec": plan.spec,
            "spec_digest": plan.spec_digest,
            "bundles": Jsonb(dict(plan.bundles)),
            "no_rematerialize": plan.no_rematerialize,
            "content": plan.content,
            "actor": plan.actor,
            "created_at": plan.created_at,
        },
    )


async def get_plan(connection: Connection, plan_id: str) -> StoredPlan | None:
    found = await rows(connection, _sql.get_plan, StoredPlan, plan_id=plan_id)
    return found[0] if found else None
