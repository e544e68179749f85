"""From a QueryRequest to the query that is run: what is not said gets its default."""

from queryd.callers import Caller
from queryd.query_parts import QueryText
from queryd.resolve import AsOf
from traceapi.query.v1.query_service_pb2 import ExplainQueryRequest, QueryRequest

_DEFAULT_SECONDS = 60.0


def query_text(request: QueryRequest, caller: Caller) -> QueryText:
    """The request has been checked against its contract, and has a query_id."""
    return QueryText(
        sql=request.sql,
        query_id=request.query_id,
        caller=caller,
        timeout=request.timeout.ToMilliseconds() / 1000 if request.HasField("timeout") else _DEFAULT_SECONDS,
        max_rows=request.max_rows,
        max_bytes=request.max_bytes,
        as_of=_as_of(request),
        min_watermarks=tuple(request.min_watermarks),
        parameters=request.parameters,
    )


def explained_text(request: ExplainQueryRequest, query_id: str, caller: Caller) -> QueryText:
    """A text that is only looked at."""
    return QueryText(
        request.sql, query_id, caller, _DEFAULT_SECONDS, as_of=_as_of(request), parameters=request.parameters
    )


def _as_of(request: QueryRequest | ExplainQueryRequest) -> AsOf:
    return AsOf(
        request.pin if request.HasField("pin") else None,
        request.deploy_number if request.HasField("deploy_number") else None,
    )
