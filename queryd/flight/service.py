"""FlightService: parses, calls, converts. Nothing of a query is decided here.

Methods have the names of the contract; those that are not here are refused (queryd/registration.py).
"""

from collections.abc import Iterator

import grpc
import pyarrow as pa
from arrow_flight import flight_pb2 as pb
from arrow_flight import flight_sql_pb2 as sql
from google.protobuf.message import Message

from kernel.dataset_sql import quoted
from kernel.errors import TraceError
from kernel.servers import credential
from queryd.engine.arrow_messages import MessageWriter, serialized
from queryd.flight import wire
from queryd.flight.actions import Actions
from queryd.flight.metadata import Metadata
from queryd.flight.queries import FlightQueries
from queryd.flight.tickets import request_of, text_request
from traceapi.query.v1.query_service_pb2 import QueryRequest
from traceapi.types.v1.errors_pb2 import ErrorReason

_LARGEST_PARAMETERS = 1 << 20


class FlightService:
    """One for each queryd."""

    def __init__(self, queries: FlightQueries, metadata: Metadata) -> None:
        self._queries = queries
        self._metadata = metadata
        self._actions = Actions(queries)

    def Handshake(
        self, request_iterator: Iterator[pb.HandshakeRequest], context: grpc.ServicerContext
    ) -> Iterator[pb.HandshakeResponse]:
        """Who shows a name and a token is told to show both from now on, in a form that drivers send as it is."""
        shown = credential(context.invocation_metadata())
        context.send_initial_metadata((("authorization", shown.bearer),))
        yield pb.HandshakeResponse()

    def ListFlights(self, request: pb.Criteria, context: grpc.ServicerContext) -> Iterator[pb.FlightInfo]:
        """The datasets, each by the path that GetFlightInfo takes; all of them, for Flight gives criteria no form."""
        if request.expression:
            raise wire.not_offered("ListFlights with criteria")
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
            yield from self._queries.read(text_request(request.ticket), context)
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
        yield from self._actions.do(request, context)

    def ListActions(self, request: pb.Empty, context: grpc.ServicerContext) -> Iterator[pb.ActionType]:
        yield from self._actions.all()

    def _metadata_schema(self, command: Message) -> pa.Schema:
        schema = self._metadata.schema(command)
        if schema is None:
            raise wire.not_offered(command.DESCRIPTOR.name)
        return schema


def _command(descriptor: pb.FlightDescriptor) -> Message:
    """A QueryRequest, or another command. A path names a dataset; a command that is no Any is a text."""
    if descriptor.type == pb.FlightDescriptor.PATH:
        return text_request(f"SELECT * FROM {quoted('.'.join(descriptor.path))}".encode())  # noqa: S608 - quoted
    command = wire.unpacked(descriptor.cmd)
    if command is None:
        return text_request(descriptor.cmd)
    if isinstance(command, sql.CommandStatementQuery):
        return text_request(command.query.encode())
    if isinstance(command, sql.CommandPreparedStatementQuery):
        return request_of(command.prepared_statement_handle)
    return command
