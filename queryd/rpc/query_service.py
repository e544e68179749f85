"""QueryService: parses, calls the runner, converts. Nothing of a query is decided here."""

from collections.abc import Callable, Iterator

import grpc

from kernel.errors import TraceError
from kernel.ids import IdSource
from kernel.servers import current_actor
from queryd.resolve import AsOf, ResolvedDataset
from queryd.run_query import Finished, OnStart, QueryRunner, QueryText, Started
from queryd.running import RunningQueries, RunningQuery
from traceapi.query.v1 import query_service_pb2 as pb
from traceapi.query.v1.query_service_pb2_grpc import QueryServiceServicer
from traceapi.types.v1.errors_pb2 import ErrorReason

_DEFAULT_SECONDS = 60.0
_SHOWN_CHARACTERS = 1000


class QueryService(QueryServiceServicer):
    """One for each queryd."""

    def __init__(self, runner: QueryRunner, queries: RunningQueries, new_id: IdSource) -> None:
        self._runner = runner
        self._queries = queries
        self._new_id = new_id

    def Query(self, request: pb.QueryRequest, context: grpc.ServicerContext) -> Iterator[pb.QueryResponse]:
        text = QueryText(
            sql=request.sql,
            query_id=request.query_id or self._new_id(),
            actor=str(current_actor()),
            timeout=request.timeout.ToMilliseconds() / 1000 if request.HasField("timeout") else _DEFAULT_SECONDS,
            max_rows=request.max_rows,
            as_of=AsOf(
                request.pin if request.HasField("pin") else None,
                request.deploy_number if request.HasField("deploy_number") else None,
            ),
            min_watermarks=tuple(request.min_watermarks),
        )
        try:
            for part in self._runner.run(text, _ends_with(context)):
                yield _response(text.query_id, part)
        except TraceError:
            if context.is_active():
                raise  # else nobody is there to hear it

    def ExplainQuery(self, request: pb.ExplainQueryRequest, context: grpc.ServicerContext) -> pb.ExplainQueryResponse:
        text = QueryText(request.sql, self._new_id(), str(current_actor()), _DEFAULT_SECONDS)
        explained = self._runner.explain(text, _ends_with(context))
        return pb.ExplainQueryResponse(datasets=map(_dataset, explained.datasets), plan=explained.plan)

    def CancelQuery(self, request: pb.CancelQueryRequest, context: grpc.ServicerContext) -> pb.CancelQueryResponse:
        self._queries.get(request.query_id).stop(_canceled(f"{current_actor()} cancelled the query"))
        return pb.CancelQueryResponse()

    def ListQueries(self, request: pb.ListQueriesRequest, context: grpc.ServicerContext) -> pb.ListQueriesResponse:
        return pb.ListQueriesResponse(queries=map(_running, self._queries.all()))


def _ends_with(context: grpc.ServicerContext) -> OnStart:
    """Ties a query to its call: when the call ends, for whatever reason, the query does."""

    def on_start(query: RunningQuery) -> Callable[[], object]:
        gone = _canceled("the client cancelled the call, or went away")
        if not context.add_callback(lambda: query.stop(gone)):
            query.stop(gone)
        return context.cancel

    return on_start


def _canceled(message: str) -> TraceError:
    return TraceError(ErrorReason.ERROR_REASON_QUERY_CANCELED, message)


def _response(query_id: str, part: Started | bytes | Finished) -> pb.QueryResponse:
    if isinstance(part, bytes):
        return pb.QueryResponse(arrow_ipc=part)
    if isinstance(part, Started):
        return pb.QueryResponse(
            started=pb.QueryStarted(
                query_id=query_id,
                pin=part.pin,
                watermarks=part.watermarks,
                file_count=part.file_count,
                file_bytes=part.file_bytes,
            )
        )
    finished = pb.QueryFinished(row_count=part.row_count, arrow_bytes=part.arrow_bytes)
    finished.elapsed_duration.FromMicroseconds(round(part.elapsed * 1_000_000))
    return pb.QueryResponse(finished=finished)


def _dataset(dataset: ResolvedDataset) -> pb.ExplainedDataset:
    return pb.ExplainedDataset(
        pin=dataset.pinned.pin,
        file_count=len(dataset.artifacts),
        row_count=sum(artifact.row_count for artifact in dataset.artifacts),
        file_bytes=dataset.file_bytes,
        virtual=bool(dataset.virtual_sql),
    )


def _running(query: RunningQuery) -> pb.RunningQuery:
    running = pb.RunningQuery(
        query_id=query.identity.query_id,
        actor=query.identity.actor,
        sql=query.identity.sql[:_SHOWN_CHARACTERS],
        row_count=query.row_count,
    )
    running.started_time.FromDatetime(query.identity.started)
    return running
