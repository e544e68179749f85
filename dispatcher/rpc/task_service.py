"""TaskService: tasks as people see and steer them. Parses, calls the slices, converts."""

import dataclasses
from collections import Counter
from collections.abc import Sequence

import grpc

from dispatcher.audit import store as audit
from dispatcher.audit.entries import Action, Entry
from dispatcher.db.pool import Pool, transaction
from dispatcher.db.rows import Connection
from dispatcher.deploy import rerun_rows, reruns
from dispatcher.events import store as events_store
from dispatcher.rpc import convert
from dispatcher.rpc.faults import translated
from dispatcher.rpc.naming import named_dataset, require_names, scope_in
from dispatcher.rpc.paging import page_size, task_page_token, uuid_token
from dispatcher.rpc.refusals import Asked, refusals_on_record
from dispatcher.rpc.reruns import jobs, readers, rerun_request
from dispatcher.tasks import changes, listing
from dispatcher.tasks.cancel import cancel_tasks
from dispatcher.tasks.rows import TaskQuery
from dispatcher.tasks.state import TRANSITIONS, TaskEvent, TaskState
from dispatcher.wakeups.explain import Hold, HoldFacts, explain, hold_facts, producing_task
from dispatcher.wakeups.queues import queue_uses
from dispatcher.wakeups.release import Releaser
from kernel.errors import TraceError
from kernel.scopes import cursor_value, scope_key
from kernel.servers import current_actor
from traceapi.control.v1 import task_service_pb2 as pb
from traceapi.control.v1.task_service_pb2_grpc import TaskServiceServicer
from traceapi.types.v1 import event_pb2
from traceapi.types.v1.errors_pb2 import ErrorReason
from traceapi.types.v1.scope_pb2 import CursorType

Context = grpc.aio.ServicerContext[object, object]

MAX_CHANGED = 4_500
"""Tasks that one call changes, each in one row, with room for what is written beside them."""
MAX_EVENTS = 1_000
MAX_ATTEMPTS = 100
"""That one answer has, with a traceback of 64 KiB each; of a source's run there may be any number."""


class TaskService(TaskServiceServicer):
    """One for each dispatcher; holds no state but what it was given."""

    def __init__(self, pool: Pool, releaser: Releaser) -> None:
        self._pool = pool
        self._releaser = releaser

    async def GetTask(self, request: pb.GetTaskRequest, context: Context) -> pb.GetTaskResponse:
        with translated():
            async with transaction(self._pool) as connection:
                row = (await listing.get_tasks(connection, [request.task_id])).get(request.task_id)
                if row is None:
                    raise _not_found(request.task_id)
                attempts = await listing.attempts_of(connection, request.task_id, MAX_ATTEMPTS)
                events = await events_store.events_of_task(connection, request.task_id, MAX_EVENTS)
        return pb.GetTaskResponse(
            task=convert.task(row),
            attempts=[convert.attempt(item) for item in attempts],
            events=[convert.event(item) for item in events],
            pins=convert.pins(row.pins) if row.pins is not None else (),
            earlier_attempt_count=attempts[0].attempt - 1 if attempts else row.attempt,
        )

    async def ListTasks(self, request: pb.ListTasksRequest, context: Context) -> pb.ListTasksResponse:
        limit = page_size(request.page_size)
        with translated():
            async with transaction(self._pool) as connection:
                await require_names(connection, request.filter.dag, request.filter.job)
                query = _query(request.filter, limit, uuid_token(request.page_token))
                if request.filter.task_ids:
                    task_ids = sorted(set(request.filter.task_ids), reverse=True)
                    limit = len(task_ids) + 1
                else:
                    task_ids = await listing.find_tasks(connection, query)
                found = await listing.get_tasks(connection, task_ids)
        tasks = [found[task_id] for task_id in task_ids if task_id in found]
        return pb.ListTasksResponse(
            tasks=[convert.task(row) for row in tasks if query.finds(row)],
            next_page_token=task_page_token(task_ids, limit),
        )

    async def CountTasks(self, request: pb.CountTasksRequest, context: Context) -> pb.CountTasksResponse:
        with translated():
            async with transaction(self._pool) as connection:
                await require_names(connection, request.dag, "")
                origin = convert.task_origin_name(request.origin) if request.origin else None
                counts = await listing.count_tasks(connection, request.dag or None, origin)
        of_jobs: Counter[tuple[str, str, str]] = Counter()
        for row in counts:  # of each version of a job
            of_jobs[row.dag, row.job, row.state] += row.count
        return pb.CountTasksResponse(
            counts=[
                pb.JobTaskCount(dag=dag, job=job, state=convert.task_state(state), count=count)
                for (dag, job, state), count in sorted(of_jobs.items())
            ]
        )

    async def RetryTasks(self, request: pb.RetryTasksRequest, context: Context) -> pb.RetryTasksResponse:
        if request.dry_run:
            return pb.RetryTasksResponse(task_count=await self._count(request.filter, TaskEvent.RETRY))
        query = dataclasses.replace(_query(request.filter, MAX_CHANGED, None), after=uuid_token(request.page_token))
        with translated():
            async with transaction(self._pool) as connection:
                await require_names(connection, request.filter.dag, request.filter.job)
                taken = await changes.retry_dead(connection, query, list(request.filter.task_ids))
                await _record(connection, Action.RETRY, request.filter.dag, taken)
        self._releaser.signal()
        more = len(taken) == MAX_CHANGED
        return pb.RetryTasksResponse(task_count=len(taken), next_page_token=taken[-1] if more else "")

    async def SkipTasks(self, request: pb.SkipTasksRequest, context: Context) -> pb.SkipTasksResponse:
        if request.dry_run:
            return pb.SkipTasksResponse(task_count=await self._count(request.filter, TaskEvent.SKIP))
        query = dataclasses.replace(_query(request.filter, MAX_CHANGED, None), after=uuid_token(request.page_token))
        with translated():
            async with transaction(self._pool) as connection:
                await require_names(connection, request.filter.dag, request.filter.job)
                taken = await changes.skip_dead(connection, query, list(request.filter.task_ids), request.reason)
                await _record(connection, Action.SKIP, request.filter.dag, taken, request.reason)
        self._releaser.signal()
        more = len(taken) == MAX_CHANGED
        return pb.SkipTasksResponse(task_count=len(taken), next_page_token=taken[-1] if more else "")

    async def CancelTasks(self, request: pb.CancelTasksRequest, context: Context) -> pb.CancelTasksResponse:
        if request.dry_run:
            events = (TaskEvent.CANCEL, TaskEvent.REQUEST_CANCEL)
            return pb.CancelTasksResponse(task_count=await self._count(request.filter, *events))
        query = dataclasses.replace(_query(request.filter, MAX_CHANGED, None), after=uuid_token(request.page_token))
        actor = str(current_actor())
        reason = f"cancelled by {actor}" + (f": {request.reason}" if request.reason else "")
        with translated():
            async with transaction(self._pool) as connection:
                await require_names(connection, request.filter.dag, request.filter.job)
                result = await cancel_tasks(connection, query, list(request.filter.task_ids), reason)
                await _record(connection, Action.CANCEL, request.filter.dag, result.task_ids, request.reason)
        self._releaser.nudge(result.running)
        self._releaser.signal()
        return pb.CancelTasksResponse(task_count=len(result.task_ids), next_page_token=result.next_after or "")

    async def RerunTasks(self, request: pb.RerunTasksRequest, context: Context) -> pb.RerunTasksResponse:
        chosen = request.filter
        after, _, before = request.page_token.partition(".")
        query = dataclasses.replace(_query(chosen, reruns.PAGE, uuid_token(before)), after=uuid_token(after))
        task_ids = list(chosen.task_ids)
        if request.dry_run:
            with translated():
                async with transaction(self._pool) as connection:
                    named = await _named_jobs(connection, chosen)
                    counted = await reruns.count_rerun(connection, query, task_ids, named)
            return pb.RerunTasksResponse(
                task_count=counted.task_count, readers=readers(counted.readers), jobs=jobs(counted.jobs)
            )
        async with refusals_on_record(self._pool, Asked(Action.RERUN, chosen.dag)):
            with translated():
                async with transaction(self._pool) as connection:
                    named = await _named_jobs(connection, chosen)
                    asked = rerun_request(request, Action.RERUN)
                    made = await reruns.rerun(connection, query, task_ids, named, asked)
        self._releaser.signal()
        return pb.RerunTasksResponse(**dataclasses.asdict(made))

    async def ExplainTask(self, request: pb.ExplainTaskRequest, context: Context) -> pb.ExplainTaskResponse:
        with translated():
            async with transaction(self._pool) as connection:
                task_id = request.task_id
                if request.WhichOneof("subject") == "dataset_scope":
                    task_id = await _producing_task(connection, request.dataset_scope)
                row = (await listing.get_tasks(connection, [task_id])).get(task_id)
                facts = await hold_facts(connection, task_id)
                uses = await queue_uses(connection, facts.queue, most_waiting=1) if facts is not None else []
        if row is None or facts is None:
            raise _not_found(task_id)
        use = uses[0] if uses else None
        explanation = explain(facts, use, self._releaser.watched().get(facts.queue))
        return pb.ExplainTaskResponse(
            task=convert.task(row),
            hold=pb.HoldKind.Value(f"HOLD_KIND_{explanation.hold.upper()}"),
            explanation=explanation.text,
            blocking_task_id=facts.ahead_id or "" if explanation.hold is Hold.STREAM else "",
            awaited_watermark=_awaited(facts) if explanation.hold is Hold.WATERMARK else None,
        )

    async def _count(self, task_filter: pb.TaskFilter, *events: TaskEvent) -> int:
        """How many tasks the filter finds to which one of the events can happen."""
        states = {state for row in TRANSITIONS if row.event in events for state in row.before}
        query = _query(task_filter, MAX_CHANGED, None)
        with translated():
            async with transaction(self._pool) as connection:
                await require_names(connection, task_filter.dag, task_filter.job)
                return await changes.count_matching(connection, query, list(task_filter.task_ids), states)


async def _named_jobs(connection: Connection, chosen: pb.TaskFilter) -> set[str]:
    """Job versions that the filter names, where it names no tasks. Raises DAG_NOT_FOUND, JOB_NOT_FOUND."""
    await require_names(connection, chosen.dag, chosen.job)
    if chosen.task_ids:
        return set()
    return {job.job_version_id for job in await rerun_rows.jobs_called(connection, chosen.job, chosen.dag or None)}


async def _record(
    connection: Connection, action: Action, dag: str, task_ids: Sequence[str], reason: str | None = None
) -> None:
    """Tasks that a person changed; where no DAG is named, those of the tasks are."""
    details = {"task_ids": list(task_ids), **({} if reason is None else {"reason": reason})}
    dags = [dag] if dag else await changes.dags_of(connection, task_ids)
    await audit.record(connection, Entry(action, str(current_actor()), dag, dags, details))


def _not_found(task_id: str) -> TraceError:
    message = f"task {task_id} does not exist, or ended longer ago than finished tasks are kept"
    return TraceError(ErrorReason.ERROR_REASON_TASK_NOT_FOUND, message)


async def _producing_task(connection: Connection, subject: pb.DatasetScope) -> str:
    """Raises DATASET_NOT_FOUND, SCOPE_MISMATCH, and TASK_NOT_FOUND where nothing makes the dataset there."""
    dataset = await named_dataset(connection, subject.dataset_id)
    if dataset.virtual_sql:
        message = f"{dataset.dataset_id} is virtual: it is evaluated when it is queried, and no task makes it"
        raise TraceError(ErrorReason.ERROR_REASON_TASK_NOT_FOUND, message)
    task_id = await producing_task(connection, dataset.dataset_id, scope_in(dataset, subject.scope))
    if task_id is None:
        message = f"no task makes {dataset.dataset_id} at this scope: no event of an input has come for it yet"
        raise TraceError(ErrorReason.ERROR_REASON_TASK_NOT_FOUND, message)
    return task_id


def _awaited(facts: HoldFacts) -> event_pb2.Watermark:
    watermark = event_pb2.Watermark(
        dataset_id=facts.awaited_dataset or "",
        dataset_version_id=facts.awaited_version_id or "",
        moved_time=convert.timestamp(facts.awaited_moved_at),
    )
    if facts.awaited_key is not None:
        cursor_type = CursorType.ValueType(facts.awaited_cursor_type or 0)
        watermark.cursor.CopyFrom(cursor_value(cursor_type, facts.awaited_key))
    return watermark


def _query(task_filter: pb.TaskFilter, limit: int, before: str | None) -> TaskQuery:
    key = scope_key(task_filter.scope) if task_filter.HasField("scope") else None
    return TaskQuery(
        dag=task_filter.dag or None,
        job=task_filter.job or None,
        states=[TaskState(convert.task_state_name(state)) for state in task_filter.states] or None,
        first=key.first if key else None,
        last=key.last if key else None,
        before=before,
        limit=limit,
    )
