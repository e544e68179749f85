"""Re-runs: further tasks for scopes that were done before, whose outputs take the place of what was there.

A task's revision is that of its event and the number of times that its job version was told to run that scope again. So
whatever is made later has the higher revision, in whatever order a job and what is upstream of it are run again, and
however long either takes: the visible artifact of a scope is that of the highest (revision, publication).

A page owns the DAGs of its jobs and of what triggers them: no event is accepted meanwhile, no version moves, no other
page counts the same scope. It is one transaction, and its answer is kept, so that asked for again it makes nothing.
"""

from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass, replace

from dispatcher.audit import store as audit
from dispatcher.audit.entries import Action, Entry
from dispatcher.db.rows import Connection
from dispatcher.deploy import rerun_rows as store
from dispatcher.deploy.rerun_rows import AnsweredPage, Bounds, Follower, NamedJob, ReaderRow, RerunJob
from dispatcher.deploy.store import own_dags
from dispatcher.events.store import DAG_LOCK_CLASS
from dispatcher.tasks.rows import TaskQuery
from kernel.crash import crash
from kernel.errors import TraceError
from traceapi.types.v1.dag_pb2 import OutputSpec, UpdateMode
from traceapi.types.v1.errors_pb2 import ErrorReason

PAGE = 1_000
"""Tasks that one transaction makes; with what is counted beside each, and a DEAD one that it stands for, three rows."""


@dataclass(frozen=True, slots=True)
class RerunRequest:
    """Who asks for a page. `digest` is of everything that was asked but the page."""

    request_id: str
    page_token: str
    digest: bytes
    action: Action
    actor: str


@dataclass(frozen=True, slots=True)
class RerunAnswer:
    """Tasks that were made, and where to go on; empty where all are."""

    task_count: int
    next_page_token: str


@dataclass(frozen=True, slots=True)
class RerunCount:
    """Tasks that would be made, of which jobs, and what becomes of those that read what they make."""

    task_count: int
    readers: Sequence[ReaderRow]
    jobs: Sequence[RerunJob]


async def count_backfill(connection: Connection, job: NamedJob, bounds: Bounds) -> RerunCount:
    """Raises RERUN_REFUSED."""
    jobs = await _rerunnable(connection, [job.job_version_id])
    return RerunCount(
        await store.count_scopes(connection, bounds), await store.readers(connection, [job.job_version_id]), jobs
    )


async def backfill(connection: Connection, job: NamedJob, bounds: Bounds, request: RerunRequest) -> RerunAnswer:
    """One page. Raises RERUN_REFUSED, REQUEST_ID_REUSED, and INVALID_REQUEST for a token that nobody gave."""
    page = await store.page_of_scopes(connection, bounds, _place(request.page_token), PAGE)
    token = f"{page[-1].scope_first.hex()}.{page[-1].event_id}" if len(page) == PAGE else ""
    causes = [(row.job_version_id, row.event_id) for row in page]
    return await _make(connection, {job.job_version_id}, causes, token, request)


async def count_rerun(connection: Connection, query: TaskQuery, task_ids: Sequence[str], named: Set[str]) -> RerunCount:
    """`named` are job versions that the filter names. Raises RERUN_REFUSED."""
    job_version_ids = sorted(await store.jobs_of_tasks(connection, query, task_ids) | named)
    jobs = await _rerunnable(connection, job_version_ids)
    return RerunCount(
        await store.count_ended(connection, query, task_ids), await store.readers(connection, job_version_ids), jobs
    )


async def rerun(
    connection: Connection, query: TaskQuery, task_ids: Sequence[str], named: Set[str], request: RerunRequest
) -> RerunAnswer:
    """One page of what the query finds from `query.after` on, below `query.before`, which the first page sets; its
    limit is the page's. Raises as `backfill`."""
    if query.before is None:
        query = replace(query, before=await store.next_task_id(connection))
    page = await store.page_of_ended(connection, query, task_ids)
    token = f"{page[-1].task_id}.{query.before}" if len(page) == query.limit else ""
    causes = [(row.job_version_id, row.event_id) for row in page if row.last_one and row.event_id is not None]
    of_tasks = await store.jobs_of_tasks(connection, query, task_ids) if task_ids else {job for job, _ in causes}
    return await _make(connection, of_tasks | named, causes, token, request)


async def _own(connection: Connection, job_version_ids: Sequence[str]) -> None:
    """Until the end of the transaction. What triggers the jobs may move before the locks are there, not after."""
    dags = await store.dags_around(connection, job_version_ids)
    await own_dags(connection, DAG_LOCK_CLASS, sorted(dags))
    if not dags.issuperset(await store.dags_around(connection, job_version_ids)):
        message = f"{', '.join(sorted(dags))} changed meanwhile: look again, then repeat"
        raise TraceError(ErrorReason.ERROR_REASON_UNAVAILABLE, message)


async def _answered(connection: Connection, request: RerunRequest) -> RerunAnswer | None:
    """What the page was answered with before."""
    standing = await store.request_digest_of(connection, request.request_id)
    if standing is not None and standing != request.digest:
        message = f"request id {request.request_id} was used for another re-run: make a new one"
        raise TraceError(ErrorReason.ERROR_REASON_REQUEST_ID_REUSED, message)
    page = await store.answered_page(connection, request.request_id, request.page_token)
    return None if page is None else RerunAnswer(page.task_count, page.next_page_token)


async def _make(
    connection: Connection,
    job_version_ids: Set[str],
    causes: Sequence[tuple[str, str]],
    token: str,
    request: RerunRequest,
) -> RerunAnswer:
    """The page was looked for without locks, which may take long; so it is judged again where its tasks are made."""
    await _own(connection, sorted(job_version_ids))
    if (answered := await _answered(connection, request)) is not None:
        return answered
    await store.lock_subscriptions(connection, sorted(job_version_ids))
    jobs = await _rerunnable(connection, sorted(job_version_ids))
    reason = f"run again by {request.actor}: a new task of its event stands for it"
    made = await store.make_reruns(connection, causes, reason)
    await store.answer_page(
        connection,
        request.request_id,
        request.page_token,
        AnsweredPage(request.digest, made, token),
        request.actor,
    )
    dags = sorted({job.dag for job in jobs})
    details = {"request_id": request.request_id, "jobs": [job.job for job in jobs], "task_count": made}
    await audit.record(connection, Entry(request.action, request.actor, ", ".join(dags), dags, details))
    crash("rerun.written")
    return RerunAnswer(made, token)


def _place(page_token: str) -> tuple[bytes, str] | None:
    if not page_token:
        return None
    try:
        first, event_id = page_token.split(".")
        return bytes.fromhex(first), event_id
    except ValueError as error:
        message = "page_token: not a token that an earlier answer gave"
        raise TraceError(ErrorReason.ERROR_REASON_INVALID_REQUEST, message) from error


async def _rerunnable(connection: Connection, job_version_ids: Sequence[str]) -> list[RerunJob]:
    """Raises RERUN_REFUSED where one of them, or what follows from it, cannot be run again."""
    jobs = await store.rerun_jobs(connection, job_version_ids)
    _require_rerunnable(jobs)
    for follower in await store.followers(connection, job_version_ids):
        if _appends(follower):
            raise TraceError(
                ErrorReason.ERROR_REASON_RERUN_REFUSED,
                f"{follower.job} of {follower.dag} follows, and {_APPENDS}",
                metadata={"dag": follower.dag, "job": follower.job},
            )
    return jobs


def _require_rerunnable(jobs: Sequence[RerunJob]) -> None:
    """Raises RERUN_REFUSED for the first one that cannot be run again."""
    for job in jobs:
        for stands_in_the_way, message in _OBSTACLES:
            if stands_in_the_way(job):
                raise TraceError(
                    ErrorReason.ERROR_REASON_RERUN_REFUSED,
                    f"{job.job} of {job.dag} {message.format(dag=job.dag)}",
                    metadata={"dag": job.dag, "job": job.job},
                )


def _appends(job: RerunJob | Follower) -> bool:
    return any(OutputSpec.FromString(spec).update == UpdateMode.UPDATE_MODE_APPEND for spec in job.output_specs)


_APPENDS = (
    "appends: its rows would be there twice, because nothing takes the earlier ones away. Give its output"
    " `update: replace`, or change it in the document, and deploy that"
)
# `{dag}` stands for the DAG.
_OBSTACLES: Sequence[tuple[Callable[[RerunJob], bool], str]] = (
    (
        lambda job: job.kind != "operator",
        "is no operator: what a source reads again it reads in a new version, so change it in the document and deploy"
        " that, or run the jobs that read it again",
    ),
    (
        lambda job: not job.active,
        "is not of the active version in this form: run the active version's tasks again, or roll back first",
    ),
    (
        lambda job: job.ordered,
        "is ordered: its state has gone past these scopes. Change it in the document and deploy that, which builds it"
        " anew beside what is there",
    ),
    (
        _appends,
        _APPENDS,
    ),
    (
        lambda job: job.catching_up,
        "still catches up on events of its inputs: wait until `tracectl dag watch {dag}` says that it has, then repeat",
    ),
)
