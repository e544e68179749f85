"""Bytes of Flight: IPC messages in FlightData and back, and what travels in a google.protobuf.Any.

In Arrow's encapsulated form a message is a marker and the length of its header, four bytes each, the header, the body;
Flight sends the latter two.
"""

from collections.abc import Iterable
from typing import TypeVar

from arrow_flight import flight_sql_pb2 as sql
from google.protobuf.any_pb2 import Any
from google.protobuf.message import DecodeError, Message

from kernel.errors import TraceError
from queryd.engine.arrow_messages import END_OF_STREAM
from queryd.envelopes import of_flight_data
from traceapi.types.v1.errors_pb2 import ErrorReason

_MARKER = b"\xff\xff\xff\xff"
_PREFIX = len(_MARKER) + 4
_ALIGNMENT = 8
_TYPE_URL = "type.googleapis.com/"

_INSTEAD_OF_WRITING = "datasets are read, by one SELECT each time, and written by their DAGs alone"
_NO_TRANSACTIONS = "there are no transactions, for each query reads one pinned state: leave autocommit on"
_INSTEAD = {
    "PollFlightInfo": "GetFlightInfo answers once the query has begun, and DoGet reads it while it goes on",
    "DoExchange": "a query is asked with GetFlightInfo and read with DoGet",
    "ListFlights with criteria": "list all, or ask CommandGetTables, which takes patterns of names",
    "RenewFlightEndpoint": "a ticket that comes late is served by running its query again, at the same pin",
    **dict.fromkeys(("CommandStatementSubstraitPlan", "CreatePreparedSubstraitPlan"), "send the text of one SELECT"),
    **dict.fromkeys(("BeginTransaction", "EndTransaction", "BeginSavepoint", "EndSavepoint"), _NO_TRANSACTIONS),
    **dict.fromkeys(("CommandStatementIngest", "CommandPreparedStatementUpdate"), _INSTEAD_OF_WRITING),
    "CommandStatementUpdate": f"{_INSTEAD_OF_WRITING}; a SELECT is run as a query, which answers rows",
}

_Message = TypeVar("_Message", bound=Message)


def flight_data(message: bytes, app_metadata: bytes = b"") -> bytes:
    """An encapsulated IPC message as a serialized FlightData."""
    view = memoryview(message)
    body = _PREFIX + int.from_bytes(view[len(_MARKER) : _PREFIX], "little")
    return of_flight_data(message[:body], len(message) - body, app_metadata) + message[body:]


def ipc_stream(messages: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Headers and bodies, as Flight sends them, as one IPC stream."""
    parts: list[bytes] = []
    for header, body in messages:
        padding = -len(header) % _ALIGNMENT
        parts += [_MARKER, (len(header) + padding).to_bytes(4, "little"), header, bytes(padding), body]
    return b"".join([*parts, END_OF_STREAM])


def packed(message: Message) -> bytes:
    """In an Any."""
    return Any(
        type_url=f"{_TYPE_URL}{message.DESCRIPTOR.full_name}", value=message.SerializeToString()
    ).SerializeToString()


def unpacked(data: bytes) -> Message | None:
    """The command of Flight SQL in an Any; None for bytes that are no Any. TraceError for what is not offered here."""
    any_ = Any()
    try:
        any_.ParseFromString(data)
    except DecodeError:
        return None
    if not any_.type_url.startswith(_TYPE_URL):
        return None
    name = any_.type_url.removeprefix(_TYPE_URL).removeprefix(f"{sql.DESCRIPTOR.package}.")
    if name not in sql.DESCRIPTOR.message_types_by_name:
        raise not_offered(name)
    kind: type[Message] = getattr(sql, name)
    return parsed(kind, any_.value)


def parsed(kind: type[_Message], data: bytes) -> _Message:
    """TraceError INVALID_REQUEST for bytes that are not of this kind."""
    message = kind()
    try:
        message.ParseFromString(data)
    except DecodeError as error:
        raise TraceError(
            ErrorReason.ERROR_REASON_INVALID_REQUEST, f"these bytes are no {kind.DESCRIPTOR.name}"
        ) from error
    return message


def not_offered(name: str, known: Iterable[str] = ()) -> TraceError:
    """For what only a server that writes would do, and for what nobody has asked for yet. `known` are the ones that
    there are, where the name may be any."""
    instead = _INSTEAD.get(name) or (f"known are {', '.join(known)}" if known else _INSTEAD_OF_WRITING)
    return TraceError(ErrorReason.ERROR_REASON_NOT_IMPLEMENTED, f"{name} is not offered here: {instead}")
