"""QueryService: parses, calls the runner, converts. Nothing of a query is decided here.

Methods have the names of the contract (queryd/registration.py).
"""

from collections.abc import Callable, Iterator

import grpc

from kernel.errors import TraceError
from kernel.ids import IdSource
from kernel.servers import current_actor
from queryd.callers import caller
from queryd.engine.arrow_messages import END_OF_STREAM
from queryd.envelopes import of_query_response
from queryd.query_parts import ArrowMessage, ArrowPart, Finished, Started
from queryd.requests import explained_text, query_text
from queryd.resolve import ResolvedDataset
from queryd.run_query import OnStart, QueryRunner
from queryd.running import RunningQueries, RunningQuery, canceled
from traceapi.control.v1.query_record_pb2 import QUERY_CALL_EXPLAIN, QUERY_CALL_QUERY
from traceapi.query.v1 import query_service_pb2 as pb

_SHOWN_CHARACTERS = 1000


class QueryService:
    """One for each queryd."""

    def __init__(self, runner: QueryRunner, queries: RunningQueries, new_id: IdSource) -> None:
        self._runner = runner
        self._queries = queries
        self._new_id = new_id

    def Query(self, request: pb.QueryRequest, context: grpc.ServicerContext) -> Iterator[pb.QueryResponse | bytes]:
        """Also serialized answers, of those with rows in them (queryd/envelopes.py)."""
        request.query_id = request.query_id or self._new_id()
        text = query_text(request, caller(context, QUERY_CALL_QUERY))
        try:
            for part in self._runner.run(text, _ends_with(context), of_query_response):
                yield from _responses(text.query_id, part)
        except TraceError:
            if context.is_active():
                raise  # else nobody is there to hear it

    def ExplainQuery(self, request: pb.ExplainQueryRequest, context: grpc.ServicerContext) -> pb.ExplainQueryResponse:
        text = explained_text(request, self._new_id(), caller(context, QUERY_CALL_EXPLAIN))
        explained = self._runner.explain(text, _ends_with(context))
        return pb.ExplainQueryResponse(datasets=map(_dataset, explained.datasets), plan=explained.plan)

    def CancelQuery(self, request: pb.CancelQueryRequest, context: grpc.ServicerContext) -> pb.CancelQueryResponse:
        self._queries.get(request.query_id).stop(canceled(f"{current_actor()} cancelled the query"))
        return pb.CancelQueryResponse()

    def ListQueries(self, request: pb.ListQueriesRequest, context: grpc.ServicerContext) -> pb.ListQueriesResponse:
        return pb.ListQueriesResponse(queries=map(_running, self._queries.all()))


def _ends_with(context: grpc.ServicerContext) -> OnStart:
    """Ties a query to its call: when the call ends, for whatever reason, the query does."""

    def on_start(query: RunningQuery) -> Callable[[], object]:
        gone = canceled("the client cancelled the call, or went away")
        if not context.add_callback(lambda: query.stop(gone)):
            query.stop(gone)
        return context.cancel

    return on_start


def _responses(
    query_id: str, part: Started | ArrowMessage | ArrowPart | Finished
) -> Iterator[pb.QueryResponse | bytes]:
    if isinstance(part, ArrowMessage):
        yield part.data
    elif isinstance(part, ArrowPart):
        yield pb.QueryResponse(arrow_ipc=part.data)
    elif isinstance(part, Started):
        started = pb.QueryStarted(
            query_id=query_id,
            pin=part.pin,
            watermarks=part.watermarks,
            file_count=part.file_count,
            file_bytes=part.file_bytes,
        )
        yield pb.QueryResponse(started=started)
        yield pb.QueryResponse(arrow_ipc=part.schema)
    else:
        yield pb.QueryResponse(arrow_ipc=END_OF_STREAM)
        arrow_bytes = part.arrow_bytes + len(END_OF_STREAM)
        finished = pb.QueryFinished(row_count=part.row_count, arrow_bytes=arrow_bytes)
        finished.elapsed_duration.FromMicroseconds(round(part.elapsed * 1_000_000))
        yield pb.QueryResponse(finished=finished)


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
        actor=query.identity.caller.actor,
        sql=query.identity.sql[:_SHOWN_CHARACTERS],
        row_count=query.row_count,
    )
    running.started_time.FromDatetime(query.identity.started)
    return running
