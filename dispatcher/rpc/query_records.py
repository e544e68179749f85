"""RecordQueries and ListQueryRecords: queries on record."""

from dataclasses import replace
from datetime import UTC

from dispatcher.audit import query_records as records
from dispatcher.audit.query_records import Ended, RecordQuery, RecordRow
from dispatcher.datasets import store as datasets_store
from dispatcher.datasets.names import no_dataset
from dispatcher.db.pool import Pool, transaction
from dispatcher.rpc import convert
from dispatcher.rpc.faults import translated
from dispatcher.rpc.paging import number_token, page_size
from kernel.errors import TraceError
from kernel.servers import current_actor
from traceapi.control.v1 import query_record_pb2 as pb
from traceapi.types.v1.dataset_pb2 import DatasetPin
from traceapi.types.v1.errors_pb2 import ErrorReason


async def record_queries(pool: Pool, request: pb.RecordQueriesRequest) -> pb.RecordQueriesResponse:
    """All or none. The same record again is none."""
    ended = [_ended(record) for record in request.records]
    with translated():
        async with transaction(pool) as connection:
            await records.record_queries(connection, ended, str(current_actor()))
    return pb.RecordQueriesResponse()


async def list_query_records(pool: Pool, request: pb.ListQueryRecordsRequest) -> pb.ListQueryRecordsResponse:
    """Raises DATASET_NOT_FOUND, QUERY_NOT_FOUND where nothing of that name was ever."""
    query = RecordQuery(
        limit=page_size(request.page_size),
        actor=request.actor or None,
        dataset_id=request.dataset_id or None,
        query_id=request.query_id or None,
        since=request.since_time.ToDatetime(UTC) if request.HasField("since_time") else None,
        before=number_token(request.page_token),
    )
    with translated():
        async with transaction(pool) as connection:
            named, known = query.dataset_id, dict[str, str]()
            if named is not None:
                known = await datasets_store.spelled(connection, [named])
                query = replace(query, dataset_id=known.get(named.casefold(), named))
            found = await records.query_records(connection, query)
            if named is not None and not known and not found:
                ever = await records.query_records(connection, RecordQuery(limit=1, dataset_id=named))
                if not ever:
                    raise await no_dataset(connection, named)
    if not found and query.before is None and query.query_id is not None:
        message = f"no query {query.query_id} is on record"
        raise TraceError(ErrorReason.ERROR_REASON_QUERY_NOT_FOUND, message, metadata={"query_id": query.query_id})
    token = str(found[-1].record_number) if len(found) == query.limit else ""
    return pb.ListQueryRecordsResponse(records=[_record(row) for row in found], next_page_token=token)


def _ended(record: pb.QueryRecord) -> Ended:
    return Ended(
        record_id=record.record_id,
        query_id=record.query_id,
        actor=record.actor,
        call=_word(pb.QueryCall.Name(record.call), "QUERY_CALL_"),
        client=record.client,
        sql_sha256=record.sql_sha256.hex(),
        as_of=_word(pb.QueryAsOf.Name(record.as_of), "QUERY_AS_OF_"),
        deploy_number=record.deploy_number if record.HasField("deploy_number") else None,
        dataset_ids=[pin.dataset_id for pin in record.datasets],
        dataset_version_ids=[pin.dataset_version_id for pin in record.datasets],
        publication_numbers=[pin.publication_number for pin in record.datasets],
        started_at=record.started_time.ToDatetime(UTC).isoformat(),
        elapsed_microseconds=record.elapsed_duration.ToMicroseconds(),
        row_count=record.row_count,
        arrow_bytes=record.arrow_bytes,
        outcome=_word(pb.QueryOutcome.Name(record.outcome), "QUERY_OUTCOME_"),
        reason=record.reason or None,
    )


def _record(row: RecordRow) -> pb.QueryRecord:
    pins = zip(row.dataset_ids, row.dataset_version_ids, row.publication_numbers, strict=True)
    record = pb.QueryRecord(
        record_id=row.record_id,
        query_id=row.query_id,
        actor=row.actor,
        call=pb.QueryCall.Value(f"QUERY_CALL_{row.call.upper()}"),
        client=row.client,
        sql_sha256=row.sql_sha256,
        as_of=pb.QueryAsOf.Value(f"QUERY_AS_OF_{row.as_of.upper()}"),
        deploy_number=row.deploy_number,
        datasets=[
            DatasetPin(dataset_id=dataset_id, dataset_version_id=version_id, publication_number=number)
            for dataset_id, version_id, number in pins
        ],
        started_time=convert.timestamp(row.started_at),
        row_count=row.row_count,
        arrow_bytes=row.arrow_bytes,
        outcome=pb.QueryOutcome.Value(f"QUERY_OUTCOME_{row.outcome.upper()}"),
        reason=row.reason or "",
        recorded_time=convert.timestamp(row.recorded_at),
        recorded_by=row.recorded_by,
    )
    record.elapsed_duration.FromTimedelta(row.elapsed)
    return record


def _word(name: str, prefix: str) -> str:
    return name.removeprefix(prefix).lower()
