"""What a fake dispatcher knows, and its verdicts: leases, tokens, epochs, state versions and event keys, as the
contract says."""

import hashlib
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

from kernel.errors import item_error
from kernel.ids import new_id
from kernel.scopes import ScopeKey, scope_key
from traceapi.types.v1 import errors_pb2 as errors
from traceapi.types.v1 import task_pb2
from traceapi.types.v1.artifact_pb2 import Artifact
from traceapi.types.v1.event_pb2 import Event
from traceapi.types.v1.job_pb2 import JobDetails
from traceapi.types.v1.scope_pb2 import CursorValue, Scope
from traceapi.types.v1.task_pb2 import OperatorState, StreamLease, TaskFailure, TaskLease
from traceapi.worker.v1 import worker_service_pb2 as pb
from traceapi.worker.v1.completion_pb2 import CompleteItem, CompleteTaskResult
from traceapi.worker.v1.emit_pb2 import EmitAccepted, EmitItem, EmitResult, EventVerdict


@dataclass(slots=True)
class FakeTask:
    """A task's row."""

    task_id: str
    job: JobDetails
    scope: Scope | None = None
    event: Event | None = None
    state: str = "queued"
    attempt: int = 0
    token: bytes = b""
    lease_until: float = 0.0
    epoch: int = 0
    accepted: int = 0
    run_emitted: bool = False
    refused_attempt: int = 0
    max_attempts: int = 3
    failures: list[TaskFailure] = field(default_factory=list)
    returned: int = 0
    progress: task_pb2.Progress | None = None
    usage: task_pb2.ResourceUsage | None = None
    canceled: bool = False
    key: tuple[bytes, str] = field(init=False)

    def __post_init__(self) -> None:
        self.key = (scope_key(self.scope).first if self.scope is not None else b""), self.task_id


@dataclass(slots=True)
class FakeStream:
    """An ordered stream's row; its lease is its tasks'."""

    epoch: int = 0
    lease_until: float = 0.0
    token: bytes = b""


@dataclass(slots=True)
class Accepted:
    """An accepted event."""

    event: Event
    producer: str
    attempt: int
    payload: bytes
    artifact: Artifact | None


class FakeState:
    """Everything may be read by a test."""

    def __init__(self) -> None:
        self.jobs: dict[str, JobDetails] = {}
        self.tasks: dict[str, FakeTask] = {}
        self.open: dict[str, FakeTask] = {}  # those that have not ended
        self.streams: dict[str, FakeStream] = defaultdict(FakeStream)
        self.states: dict[str, OperatorState] = {}
        self.events: dict[tuple[str, str, ScopeKey], Accepted] = {}
        self.watermarks: dict[str, CursorValue] = {}
        self.watchers: dict[str, int] = {}  # worker to credits
        self.grants: list[int] = []  # after the first ones, in order
        self.refuse_events: Callable[[EmitItem], errors.ItemError | None] = lambda _item: None
        self.paused = False
        self.overloaded_claims = 0  # how many tasks find no room in their claim

    def new_task(self, details: JobDetails, scope: Scope | None, event: Event | None) -> FakeTask:
        task = FakeTask(new_id(), details, scope, event)
        self.tasks[task.task_id] = self.open[task.task_id] = task
        return task

    def events_of(self, dataset_id: str) -> list[Accepted]:
        found = [accepted for (dataset, _, _), accepted in self.events.items() if dataset == dataset_id]
        return sorted(found, key=lambda accepted: scope_key(accepted.event.scope).first)

    def releasable(self, worker_id: str) -> list[str]:
        """Ids to send now: tasks that wait; of an ordered stream that is free its head alone."""
        if self.paused:
            return []
        ids: list[str] = []
        heads: set[str] = set()
        for task in sorted(self.open.values(), key=lambda one: one.key):
            version = task.job.job_version_id
            if task.job.ordered:
                if version in heads:
                    continue
                heads.add(version)
            if task.state == "queued":
                ids.append(task.task_id)
        return ids[: max(0, self.watchers.get(worker_id, 0))]

    def claim(self, request: pb.ClaimTasksRequest) -> pb.ClaimTasksResponse:
        response = pb.ClaimTasksResponse()
        until = time.monotonic() + request.lease_duration.seconds + request.lease_duration.nanos / 1e9
        versions: set[str] = set()
        runs: dict[str, int] = {}
        for task_id in request.task_ids:
            result = response.results.add(task_id=task_id)
            task = self.tasks.get(task_id)
            if task is None:
                result.error.CopyFrom(item_error(errors.ERROR_REASON_TASK_NOT_FOUND, "no such task"))
                continue
            version = task.job.job_version_id
            if self.overloaded_claims:
                self.overloaded_claims -= 1
                result.error.CopyFrom(item_error(errors.ERROR_REASON_OVERLOADED, "this claim is full"))
                continue
            if task.job.ordered and version in runs:
                result.run_index = runs[version]
            elif task.state != "released":
                result.error.CopyFrom(item_error(errors.ERROR_REASON_TASK_NOT_READY, f"it is {task.state}"))
            elif task.job.ordered:
                result.run_index = runs[version] = len(response.runs)
                self._claim_run(response.runs.add(), task.job, request, until)
                versions.add(version)
            else:
                result.claimed.CopyFrom(self._lease(task, request, until))
                versions.add(version)
        known = set(request.known_details_ids)
        response.jobs.extend(job for v in sorted(versions) if (job := self.jobs[v]).details_id not in known)
        return response

    def _claim_run(self, run: pb.TaskRun, job: JobDetails, request: pb.ClaimTasksRequest, until: float) -> None:
        stream = self.streams[job.job_version_id]
        stream.epoch += 1
        stream.lease_until, stream.token = until, request.lease_token
        run.stream.CopyFrom(StreamLease(job_version_id=job.job_version_id, epoch=stream.epoch))
        waiting = [
            task
            for task in sorted(self.open.values(), key=lambda one: one.key)
            if task.job.job_version_id == job.job_version_id and task.state in ("queued", "released")
        ]
        for task in waiting[: request.max_run_tasks or 500]:
            run.tasks.append(self._lease(task, request, until))
            task.epoch = stream.epoch
        if job.job_version_id in self.states:
            run.state.CopyFrom(self.states[job.job_version_id])

    def _lease(self, task: FakeTask, request: pb.ClaimTasksRequest, until: float) -> pb.ClaimedTask:
        task.state, task.attempt, task.token, task.lease_until = (
            "running",
            task.attempt + 1,
            request.lease_token,
            until,
        )
        return pb.ClaimedTask(
            task_id=task.task_id,
            attempt=task.attempt,
            lease_duration=request.lease_duration,
            job_version_id=task.job.job_version_id,
            details_id=self.jobs[task.job.job_version_id].details_id,
            scope=task.scope,
            event=task.event,
            state=self.states.get(task.job.job_version_id) if task.job.source else None,
            accepted_event_count=task.accepted,
            already_emitted=task.run_emitted,
        )

    def lease_error(self, lease: TaskLease, stream: StreamLease | None) -> errors.ItemError | None:
        task = self.tasks[lease.task_id]
        if task.state != "running" or task.attempt != lease.attempt or task.token != lease.lease_token:
            return item_error(errors.ERROR_REASON_STALE_LEASE, f"{task.state}, attempt {task.attempt}")
        if task.job.ordered:
            held = self.streams[task.job.job_version_id]
            if stream is None or stream.epoch != held.epoch or time.monotonic() > held.lease_until:
                return item_error(errors.ERROR_REASON_STALE_STREAM_EPOCH, f"epoch {held.epoch}")
        elif time.monotonic() > task.lease_until:
            return item_error(errors.ERROR_REASON_STALE_LEASE, "expired")
        return None

    def emit(self, item: EmitItem) -> EmitResult:
        stream = item.stream if item.HasField("stream") else None
        for lease in item.tasks:
            error = self.lease_error(lease, stream)
            if error is not None:
                return EmitResult(error=error)
        tasks = [self.tasks[lease.task_id] for lease in item.tasks]
        error = self.refuse_events(item) or self._state_error(item, tasks[0])
        accepted: list[Accepted] = []
        verdicts: list[EventVerdict] = []
        for emitted in item.events if error is None else ():
            task = tasks[emitted.task_index]
            artifact = item.artifacts[emitted.artifact_index] if emitted.HasField("artifact_index") else None
            key = (emitted.dataset_id, task.task_id, scope_key(emitted.scope))
            payload = hashlib.sha256(
                (artifact.sha256 if artifact else b"") + emitted.manifest.SerializeToString(deterministic=True)
            ).digest()
            standing = self.events.get(key)
            if standing is not None and standing.payload != payload and standing.attempt == task.attempt:
                error = item_error(errors.ERROR_REASON_EVENT_CONFLICT, "other payload")
                break
            event = Event(
                event_id=new_id(),
                dataset_id=emitted.dataset_id,
                scope=emitted.scope,
                producer_task_id=task.task_id,
                producer_attempt=task.attempt,
                manifest=emitted.manifest if emitted.HasField("manifest") else None,
            )
            verdicts.append(EventVerdict(event_id=event.event_id, duplicate=standing is not None))
            if standing is None:
                accepted.append(Accepted(event, task.task_id, task.attempt, payload, artifact))
        if error is not None:
            for task in tasks:
                task.refused_attempt = task.attempt
            return EmitResult(error=error)
        return EmitResult(accepted=self._accept(item, tasks, accepted, verdicts))

    def _state_error(self, item: EmitItem, task: FakeTask) -> errors.ItemError | None:
        if not item.HasField("state"):
            return None
        standing = self.states.get(task.job.job_version_id, OperatorState())
        repeated = standing.version == item.state.expected_version + 1 and standing.data == item.state.data
        if standing.version != item.state.expected_version and not repeated:
            return item_error(errors.ERROR_REASON_STATE_CONFLICT, f"version {standing.version}")
        return None

    def _accept(
        self, item: EmitItem, tasks: list[FakeTask], accepted: list[Accepted], verdicts: list[EventVerdict]
    ) -> EmitAccepted:
        for one in accepted:
            self.events[one.event.dataset_id, one.producer, scope_key(one.event.scope)] = one
            self.tasks[one.producer].accepted += 1
            self._route(one.event)
        for task in tasks:
            task.run_emitted = task.run_emitted or item.HasField("stream")
        version = 0
        if item.HasField("state"):
            version = item.state.expected_version + 1
            self.states[tasks[0].job.job_version_id] = OperatorState(data=item.state.data, version=version)
        for move in item.watermarks:
            self.watermarks[move.dataset_id] = move.cursor
        return EmitAccepted(events=verdicts, state_version=version)

    def _route(self, event: Event) -> None:
        for job in self.jobs.values():
            if any(one.dataset_id == event.dataset_id and one.trigger for one in job.inputs):
                self.new_task(job, event.scope, event)

    def complete(self, item: CompleteItem, blamed: set[str]) -> CompleteTaskResult:
        task = self.tasks[item.lease.task_id]
        error = self.lease_error(item.lease, item.stream if item.HasField("stream") else None)
        if error is None and item.HasField("success"):
            if task.refused_attempt == task.attempt:
                error = item_error(errors.ERROR_REASON_EMIT_REFUSED, "an emit was refused")
            elif task.accepted < item.success.emitted_event_count:
                error = item_error(errors.ERROR_REASON_EVENTS_MISSING, f"{task.accepted} are accepted")
        if error is not None:
            return CompleteTaskResult(task_id=task.task_id, error=error)
        if item.HasField("usage"):
            task.usage = item.usage
        if item.HasField("success"):
            task.state = "succeeded"
            del self.open[task.task_id]
        elif item.HasField("canceled"):
            task.state = "canceled"
            del self.open[task.task_id]
        elif item.HasField("returned"):
            task.state = "queued"
            task.returned += 1
        else:
            charged = not item.HasField("stream") or item.stream.job_version_id not in blamed
            blamed.add(task.job.job_version_id)
            if charged:
                task.failures.append(item.failure)
            final = item.failure.error_class == task_pb2.ERROR_CLASS_INVALID_OUTPUT
            task.state = "dead" if final or len(task.failures) >= task.max_attempts else "queued"
        state = task_pb2.TaskState.Value(f"TASK_STATE_{task.state.upper()}")
        return CompleteTaskResult(task_id=task.task_id, state=state)
