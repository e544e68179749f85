"""The answer to a claim, filled in place: protobuf copies what is set as a message, and these are many."""

from collections.abc import Mapping, Sequence

from dispatcher.events.values import max_events_per_emit
from dispatcher.rpc import convert
from dispatcher.tasks.claim import Claimed
from dispatcher.tasks.leases import Refusal
from dispatcher.tasks.rows import ClaimedRow, JobSettings
from traceapi.types.v1.job_pb2 import JobDetails
from traceapi.worker.v1 import worker_service_pb2 as pb


def details_id(settings: JobSettings) -> str:
    """Another one as soon as anything in the details is another."""
    limit = max_events_per_emit(settings.consumers)
    return f"{settings.dag_version_id}/{settings.job_version_id}/{limit}"


def details(settings: JobSettings, stored: bytes) -> JobDetails:
    """What a worker is told of a job version."""
    message = JobDetails.FromString(stored)
    message.details_id = details_id(settings)
    message.max_events_per_emit = max_events_per_emit(settings.consumers)
    return message


def claim_response(
    request: pb.ClaimTasksRequest, claimed: Claimed, jobs: Sequence[JobDetails]
) -> pb.ClaimTasksResponse:
    """One result per id of the request, and the runs."""
    response = pb.ClaimTasksResponse(jobs=jobs)
    details_ids = {id_: details_id(settings) for id_, settings in claimed.settings.items()}
    lease = request.lease_duration.seconds, request.lease_duration.nanos
    for task_id in request.task_ids:
        result = response.results.add(task_id=task_id)
        outcome = claimed.outcomes[task_id]
        if isinstance(outcome, ClaimedRow):
            _fill(result.claimed, outcome, details_ids, lease)
            state = claimed.states.get((outcome.job_version_id, "")) if outcome.origin == "source_run" else None
            if state is not None:
                result.claimed.state.CopyFrom(convert.operator_state(state))
        elif isinstance(outcome, Refusal):
            result.error.CopyFrom(convert.item_error(outcome))
        else:
            result.run_index = outcome
    for run in claimed.runs:
        message = response.runs.add()
        message.stream.job_version_id, message.stream.stream_key = run.stream
        message.stream.epoch = run.epoch
        for row in run.tasks:
            _fill(message.tasks.add(), row, details_ids, lease)
        if run.state is not None:
            message.state.CopyFrom(convert.operator_state(run.state))
    return response


def _fill(message: pb.ClaimedTask, row: ClaimedRow, details_ids: Mapping[str, str], lease: tuple[int, int]) -> None:
    message.task_id = row.task_id
    message.attempt = row.attempt
    if row.lease_until is not None:
        convert.set_time(message.lease_until_time, row.lease_until)
    message.lease_duration.seconds, message.lease_duration.nanos = lease
    message.job_version_id = row.job_version_id
    message.details_id = details_ids[row.job_version_id]
    if row.pins is not None:
        message.pins.extend(convert.pins(row.pins))
    message.accepted_event_count = row.accepted_events
    message.already_emitted = row.run_emitted
    message.origin = convert.ORIGINS[row.origin]
    if row.event_id is not None:
        convert.fill_event(message.event, row)
        convert.fill_scope(message.scope, row)
