"""Tickets and handles of prepared statements: each is a QueryRequest, so any queryd can serve it, also after a restart.

They come back from clients, and are checked as any request is: nothing is trusted for being in one.
"""

from arrow_flight import flight_pb2, flight_sql_pb2
from google.protobuf.message import DecodeError

from kernel.errors import TraceError
from kernel.validation import validate_message
from queryd.flight.wire import packed
from traceapi.query.v1.query_service_pb2 import QueryRequest
from traceapi.types.v1.errors_pb2 import ErrorReason


def ticket_of(request: QueryRequest) -> flight_pb2.Ticket:
    """What DoGet takes to answer this request."""
    handle = request.SerializeToString()
    return flight_pb2.Ticket(ticket=packed(flight_sql_pb2.TicketStatementQuery(statement_handle=handle)))


def request_of(handle: bytes) -> QueryRequest:
    """Raises TraceError INVALID_REQUEST for bytes that were not made here, or have been changed to something wrong."""
    request = QueryRequest()
    try:
        request.ParseFromString(handle)
    except DecodeError as error:
        message = "this ticket, or handle of a statement, was not made by queryd"
        raise TraceError(ErrorReason.ERROR_REASON_INVALID_REQUEST, message) from error
    validate_message(request)
    return request


def text_request(data: bytes) -> QueryRequest:
    """For a text of SQL alone. Raises TraceError INVALID_REQUEST for bytes that are none, or more than there may be."""
    try:
        request = QueryRequest(sql=data.decode())
    except UnicodeDecodeError as error:
        message = "these bytes are neither a command of Flight SQL nor a text of SQL"
        raise TraceError(ErrorReason.ERROR_REASON_INVALID_REQUEST, message) from error
    validate_message(request)
    return request
