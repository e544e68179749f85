"""FlightService: parses, calls, converts. Nothing of a query is decided here.

Methods have the names of the contract; those that are not here are refused (queryd/registration.py).
"""

from collections.abc import Callable, Iterator, Mapping

import grpc
import pyarrow as pa
from arrow_flight import flight_pb2 as pb
from arrow_flight import flight_sql_pb2 as sql
from google.protobuf.message import Message

from kernel.dataset_sql import quoted
from kernel.errors import TraceError
from kernel.servers import credential
from kernel.validation import validate_message
from queryd.engine.arrow_messages import MessageWriter, serialized
from queryd.flight import wire
from queryd.flight.metadata import Metadata
from queryd.flight.queries import FlightQueries
from queryd.flight.tickets import request_of
from queryd.running import RunningQueries, canceled
from traceapi.query.v1.query_service_pb2 import QueryRequest
from traceapi.types.v1.errors_pb2 import ErrorReason

_LARGEST_PARAMETERS = 1 << 20
_ACTIONS = {
    "CreatePreparedStatement": "A handle for a text whose parameters are given later.",
    "ClosePreparedStatement": "Nothing: a handle is all that a prepared statement is.",
    "CancelFlightInfo": "Stops a query.",
    "CancelQuery": "Stops a query; as clients before CancelFlightInfo do it.",
}


class FlightService:
    """One for each queryd."""

    def __init__(self, queries: FlightQueries, metadata: Metadata, running: RunningQueries) -> None:
        self._queries = queries
        self._metadata = metadata
        self._running = running
        self._actions: Mapping[str, Callable[[bytes, grpc.ServicerContext], Iterator[pb.Result]]] = {
            "CreatePreparedStatement": self._prepare,
            "ClosePreparedStatement": self._close_prepared,
            "CancelFlightInfo": self._cancel,
            "CancelQuery": self._cancel_as_before,
        }

    def Handshake(
        self, request_iterator: Iterator[pb.HandshakeRequest], context: grpc.ServicerContext
    ) -> Iterator[pb.HandshakeResponse]:
        """Who shows a name and a token is told to show the token from now on."""
        token = credential(context.invocation_metadata()).token
        context.send_initial_metadata((("authorization", f"Bearer {token}"),))
        yield pb.HandshakeResponse()

    def ListFlights(self, request: pb.Criteria, context: grpc.ServicerContext) -> Iterator[pb.FlightInfo]:
        """The datasets, each by the path that GetFlightInfo takes."""
        for row in self._metadata.table(sql.CommandGetTables(include_schema=True)).to_pylist():
            path = ".".join(filter(None, (row["db_schema_name"], row["table_name"])))
            descriptor = pb.FlightDescriptor(type=pb.FlightDescriptor.PATH, path=[path])
            yield pb.FlightInfo(
                schema=row["table_schema"], flight_descriptor=descriptor, total_records=-1, total_bytes=-1
            )

    def GetFlightInfo(self, request: pb.FlightDescriptor, context: grpc.ServicerContext) -> pb.FlightInfo:
        command = _command(request)
        if isinstance(command, QueryRequest):
            info = self._queries.begin(command, context)
        else:
            schema = self._metadata_schema(command)
            info = pb.FlightInfo(schema=schema.serialize().to_pybytes(), total_records=-1, total_bytes=-1, ordered=True)
            info.endpoint.add(ticket=pb.Ticket(ticket=request.cmd))
        info.flight_descriptor.CopyFrom(request)
        return info

    def GetSchema(self, request: pb.FlightDescriptor, context: grpc.ServicerContext) -> pb.SchemaResult:
        command = _command(request)
        if isinstance(command, QueryRequest):
            return pb.SchemaResult(schema=self._queries.describe(command, context).schema)
        return pb.SchemaResult(schema=self._metadata_schema(command).serialize().to_pybytes())

    def DoGet(self, request: pb.Ticket, context: grpc.ServicerContext) -> Iterator[bytes]:
        """Serialized FlightData (queryd/flight/wire.py)."""
        command = wire.unpacked(request.ticket)
        if isinstance(command, sql.TicketStatementQuery):
            yield from self._queries.read(request_of(command.statement_handle), context)
        elif command is None:
            yield from self._queries.read(_text(request.ticket), context)
        else:
            self._metadata_schema(command)
            table = self._metadata.table(command)
            writer = MessageWriter(table.schema)
            yield wire.flight_data(writer.opening().to_pybytes())
            for batch in table.to_batches():
                for message in writer.messages(batch):
                    yield wire.flight_data(serialized(message).to_pybytes())

    def DoPut(self, request_iterator: Iterator[pb.FlightData], context: grpc.ServicerContext) -> Iterator[pb.PutResult]:
        """Values for a prepared statement; the answer is the handle that has them."""
        first = next(request_iterator, pb.FlightData())
        command = wire.unpacked(first.flight_descriptor.cmd)
        if not isinstance(command, sql.CommandPreparedStatementQuery):
            raise wire.not_offered("DoPut" if command is None else command.DESCRIPTOR.name)
        request = request_of(command.prepared_statement_handle)
        messages, size = [(first.data_header, first.data_body)], 0
        for data in request_iterator:
            size += len(data.data_header) + len(data.data_body)
            if size > _LARGEST_PARAMETERS:
                message = f"values of parameters may take {_LARGEST_PARAMETERS >> 20} MiB together"
                raise TraceError(ErrorReason.ERROR_REASON_INVALID_REQUEST, message)
            messages.append((data.data_header, data.data_body))
        request.parameters = wire.ipc_stream(message for message in messages if message[0])
        result = sql.DoPutPreparedStatementResult(prepared_statement_handle=request.SerializeToString())
        yield pb.PutResult(app_metadata=result.SerializeToString())

    def DoAction(self, request: pb.Action, context: grpc.ServicerContext) -> Iterator[pb.Result]:
        act = self._actions.get(request.type)
        if act is None:
            raise wire.not_offered(f"the action {request.type}")
        yield from act(request.body, context)

    def ListActions(self, request: pb.Empty, context: grpc.ServicerContext) -> Iterator[pb.ActionType]:
        for type_, description in _ACTIONS.items():
            yield pb.ActionType(type=type_, description=description)

    def _prepare(self, body: bytes, context: grpc.ServicerContext) -> Iterator[pb.Result]:
        wanted = wire.unpacked(body)
        if not isinstance(wanted, sql.ActionCreatePreparedStatementRequest):
            raise wire.not_offered("CreatePreparedStatement without its request")
        request = _text(wanted.query.encode())
        handle = request.SerializeToString()
        description = self._queries.describe(request, context)
        parameters = pa.schema([pa.field(name, pa.null()) for name in description.parameters])
        result = sql.ActionCreatePreparedStatementResult(
            prepared_statement_handle=handle, dataset_schema=description.schema
        )
        if description.parameters:
            result.parameter_schema = parameters.serialize().to_pybytes()
        yield pb.Result(body=wire.packed(result))

    def _close_prepared(self, body: bytes, context: grpc.ServicerContext) -> Iterator[pb.Result]:
        return iter(())

    def _cancel(self, body: bytes, context: grpc.ServicerContext) -> Iterator[pb.Result]:
        self._stop(wire.parsed(pb.CancelFlightInfoRequest, body).info)
        yield pb.Result(body=pb.CancelFlightInfoResult(status=pb.CANCEL_STATUS_CANCELLED).SerializeToString())

    def _cancel_as_before(self, body: bytes, context: grpc.ServicerContext) -> Iterator[pb.Result]:
        wanted = wire.unpacked(body)
        if not isinstance(wanted, sql.ActionCancelQueryRequest):
            raise wire.not_offered("CancelQuery without its request")
        self._stop(wire.parsed(pb.FlightInfo, wanted.info))
        result = sql.ActionCancelQueryResult.CANCEL_RESULT_CANCELLED
        yield pb.Result(body=wire.packed(sql.ActionCancelQueryResult(result=result)))

    def _stop(self, info: pb.FlightInfo) -> None:
        for endpoint in info.endpoint:
            command = wire.unpacked(endpoint.ticket.ticket)
            if isinstance(command, sql.TicketStatementQuery):
                query_id = request_of(command.statement_handle).query_id
                self._running.get(query_id).stop(canceled("the client cancelled the query"))

    def _metadata_schema(self, command: Message) -> pa.Schema:
        schema = self._metadata.schema(command)
        if schema is None:
            raise wire.not_offered(command.DESCRIPTOR.name)
        return schema


def _command(descriptor: pb.FlightDescriptor) -> Message:
    """A QueryRequest, or another command. A path names a dataset; a command that is no Any is a text."""
    if descriptor.type == pb.FlightDescriptor.PATH:
        return _text(f"SELECT * FROM {quoted('.'.join(descriptor.path))}".encode())  # noqa: S608 - quoted
    command = wire.unpacked(descriptor.cmd)
    if command is None:
        return _text(descriptor.cmd)
    if isinstance(command, sql.CommandStatementQuery):
        return _text(command.query.encode())
    if isinstance(command, sql.CommandPreparedStatementQuery):
        return request_of(command.prepared_statement_handle)
    return command


def _text(data: bytes) -> QueryRequest:
    try:
        request = QueryRequest(sql=data.decode())
    except UnicodeDecodeError as error:
        message = "these bytes are neither a command of Flight SQL nor a text of SQL"
        raise TraceError(ErrorReason.ERROR_REASON_INVALID_REQUEST, message) from error
    validate_message(request)
    return request
