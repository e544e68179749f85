"""What a query leaves on record: who asked what of which datasets, and how it ended. Pure."""

import hashlib
from datetime import timedelta

from kernel.errors import TraceError
from queryd.running import RunningQuery
from traceapi.control.v1 import query_record_pb2 as pb
from traceapi.types.v1.errors_pb2 import ErrorReason

# Of these nothing was read: the text, or what it names, is not to be run.
_REFUSALS = frozenset(
    {
        ErrorReason.ERROR_REASON_SQL_REFUSED,
        ErrorReason.ERROR_REASON_NAME_AMBIGUOUS,
        ErrorReason.ERROR_REASON_DATASET_NOT_FOUND,
        ErrorReason.ERROR_REASON_INVALID_REQUEST,
        ErrorReason.ERROR_REASON_NOT_IMPLEMENTED,
        ErrorReason.ERROR_REASON_PIN_COLLECTED,
    }
)


def record(record_id: str, query: RunningQuery, error: TraceError | None, elapsed: float) -> pb.QueryRecord:
    """`error` is what it ended with, None where all was given; `elapsed` in seconds, from the request to the end."""
    identity, pin = query.identity, query.pin
    made = pb.QueryRecord(
        record_id=record_id,
        query_id=identity.query_id,
        actor=identity.caller.actor,
        call=identity.caller.call,
        client=identity.caller.client,
        sql_sha256=hashlib.sha256(identity.sql.encode()).digest(),
        as_of=identity.as_of,
        deploy_number=None if pin is None else pin.deploy_number,
        datasets=() if pin is None else pin.datasets,
        row_count=query.row_count,
        arrow_bytes=query.arrow_bytes,
        outcome=_outcome(error),
        reason="" if error is None else error.reason_name,
    )
    made.started_time.FromDatetime(identity.started)
    made.elapsed_duration.FromTimedelta(timedelta(seconds=elapsed))
    return made


def _outcome(error: TraceError | None) -> pb.QueryOutcome.ValueType:
    if error is None:
        return pb.QUERY_OUTCOME_SUCCEEDED
    if error.reason == ErrorReason.ERROR_REASON_QUERY_CANCELED:
        return pb.QUERY_OUTCOME_CANCELED
    return pb.QUERY_OUTCOME_REFUSED if error.reason in _REFUSALS else pb.QUERY_OUTCOME_FAILED
