"""What Flight asks by DoAction: prepared statements, the end of a query, and the options of sessions.

There are no sessions: a statement's handle and a query's ticket say all that there is to say (ADR 0037).
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

import grpc
from arrow_flight import flight_pb2 as pb
from arrow_flight import flight_sql_pb2 as sql
from google.protobuf.message import Message

from kernel.errors import TraceError
from queryd.flight import wire
from queryd.flight.queries import FlightQueries
from queryd.flight.tickets import request_of, text_request
from traceapi.types.v1.errors_pb2 import ErrorReason

# Options that say where names are looked for. There is one catalog, without a name, and no schema is looked in first.
_PLACES = frozenset({"catalog", "schema"})

_Wanted = TypeVar("_Wanted", bound=Message)


@dataclass(frozen=True, slots=True)
class _Action:
    description: str
    act: Callable[[bytes, grpc.ServicerContext], Message | bytes | None]


class Actions:
    """One for each queryd."""

    def __init__(self, queries: FlightQueries) -> None:
        self._queries = queries
        self._known: Mapping[str, _Action] = {
            "CreatePreparedStatement": _Action("A handle for a text whose parameters are given later.", self._prepare),
            "ClosePreparedStatement": _Action("Nothing: a handle is all that a prepared statement is.", _nothing),
            "CancelFlightInfo": _Action("Stops a query.", self._cancel),
            "CancelQuery": _Action("Stops a query; as clients before CancelFlightInfo do it.", self._cancel_as_before),
            "SetSessionOptions": _Action("Takes what holds anyway: the catalog without a name.", _set_options),
            "CloseSession": _Action("Nothing: there are no sessions.", _close_session),
        }

    def do(self, action: pb.Action, context: grpc.ServicerContext) -> Iterator[pb.Result]:
        """Raises TraceError."""
        known = self._known.get(action.type)
        if known is None:
            raise wire.not_offered(action.type, known=self._known)
        answer = known.act(action.body, context)
        if answer is not None:
            yield pb.Result(body=answer if isinstance(answer, bytes) else answer.SerializeToString())

    def all(self) -> Iterator[pb.ActionType]:
        """With what each one does."""
        for type_, action in self._known.items():
            yield pb.ActionType(type=type_, description=action.description)

    def _prepare(self, body: bytes, context: grpc.ServicerContext) -> bytes:
        wanted = _wanted(sql.ActionCreatePreparedStatementRequest, body)
        request = text_request(wanted.query.encode())
        handle = request.SerializeToString()
        description = self._queries.describe(request, context)
        result = sql.ActionCreatePreparedStatementResult(
            prepared_statement_handle=handle,
            dataset_schema=description.schema,
            parameter_schema=description.parameters,
        )
        return wire.packed(result)

    def _cancel(self, body: bytes, context: grpc.ServicerContext) -> Message:
        stopped = self._stop(wire.parsed(pb.CancelFlightInfoRequest, body).info)
        status = pb.CANCEL_STATUS_CANCELLED if stopped else pb.CANCEL_STATUS_NOT_CANCELLABLE
        return pb.CancelFlightInfoResult(status=status)

    def _cancel_as_before(self, body: bytes, context: grpc.ServicerContext) -> bytes:
        stopped = self._stop(wire.parsed(pb.FlightInfo, _wanted(sql.ActionCancelQueryRequest, body).info))
        results = sql.ActionCancelQueryResult
        result = results.CANCEL_RESULT_CANCELLED if stopped else results.CANCEL_RESULT_NOT_CANCELLABLE
        return wire.packed(sql.ActionCancelQueryResult(result=result))

    def _stop(self, info: pb.FlightInfo) -> bool:
        """Whether there was something to stop: a query that has ended is left alone, and need not be asked about."""
        commands = [wire.unpacked(endpoint.ticket.ticket) for endpoint in info.endpoint]
        handles = [found.statement_handle for found in commands if isinstance(found, sql.TicketStatementQuery)]
        stopped = [self._queries.stop(request_of(handle).query_id) for handle in handles]
        return any(stopped)


def _nothing(_body: bytes, _context: grpc.ServicerContext) -> None:
    return None


def _set_options(body: bytes, _context: grpc.ServicerContext) -> Message:
    """Options that are not set are told one by one, as the standard says: the call does not fail."""
    result = pb.SetSessionOptionsResult()
    for name, value in wire.parsed(pb.SetSessionOptionsRequest, body).session_options.items():
        if name not in _PLACES:
            result.errors[name].value = pb.SetSessionOptionsResult.INVALID_NAME
        elif value.WhichOneof("option_value") not in (None, "string_value") or value.string_value:
            result.errors[name].value = pb.SetSessionOptionsResult.INVALID_VALUE
    return result


def _close_session(_body: bytes, _context: grpc.ServicerContext) -> Message:
    return pb.CloseSessionResult(status=pb.CloseSessionResult.CLOSED)


def _wanted(kind: type[_Wanted], body: bytes) -> _Wanted:
    """The request that the action carries. TraceError INVALID_REQUEST where it carries something else."""
    found = wire.unpacked(body)
    if not isinstance(found, kind):
        message = f"this action carries {kind.DESCRIPTOR.name}, and nothing like it came"
        raise TraceError(ErrorReason.ERROR_REASON_INVALID_REQUEST, message)
    return found
