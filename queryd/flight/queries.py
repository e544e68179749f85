"""Queries as Flight asks them: begun by one call, read by another."""

import json
from collections.abc import Iterator
from dataclasses import dataclass

import grpc
from arrow_flight import flight_pb2 as pb
from google.protobuf import json_format

from kernel.errors import TraceError
from kernel.ids import IdSource
from kernel.pin_text import pin_text
from kernel.servers import current_actor
from queryd.callers import caller
from queryd.envelopes import of_flight_data
from queryd.flight import call_options, wire
from queryd.flight.held import HeldQueries, HeldQuery, Tie
from queryd.flight.tickets import ticket_of
from queryd.query_parts import ArrowMessage, ArrowPart, Description, Started
from queryd.requests import query_text
from queryd.run_query import QueryRunner
from queryd.running import RunningQueries, canceled
from traceapi.control.v1.query_record_pb2 import QUERY_CALL_FLIGHT, QUERY_CALL_FLIGHT_DESCRIBE
from traceapi.query.v1.query_service_pb2 import QueryRequest
from traceapi.types.v1.errors_pb2 import ErrorReason

# A message is sent whole, so it has to be held whole: one row may not be larger.
_LARGEST_MESSAGE = 64 << 20


@dataclass(frozen=True, slots=True)
class FlightQueries:
    """One for each queryd."""

    runner: QueryRunner
    running: RunningQueries
    held: HeldQueries
    new_id: IdSource

    def begin(self, request: QueryRequest, context: grpc.ServicerContext) -> pb.FlightInfo:
        """Begins the query and leaves it to whoever brings the ticket. Raises TraceError."""
        request.query_id = self.new_id()
        call_options.apply(context.invocation_metadata(), request)
        query = self._begun(request, context)
        started = query.started
        if started.pin is not None:
            request.pin.CopyFrom(started.pin)
            del request.min_watermarks[:]  # which that state has reached
        info = pb.FlightInfo(
            schema=started.schema, total_records=-1, total_bytes=-1, ordered=True, app_metadata=_about(request, started)
        )
        info.endpoint.add(ticket=ticket_of(request), app_metadata=info.app_metadata)
        self.held.hold(query)
        return info

    def read(self, request: QueryRequest, context: grpc.ServicerContext) -> Iterator[bytes]:
        """The answer as serialized FlightData. Where the query does not wait any more it is run again, at its pin."""
        query = self.held.take(request.query_id, str(current_actor()))
        if query is None:
            call_options.apply(context.invocation_metadata(), request)
            query = self._again(request, context)
        else:
            query.tie.to(context)
        try:
            query.tie.check()
            yield wire.flight_data(query.started.schema, _about(request, query.started))
            yield from _messages(query)
        except TraceError:
            if context.is_active():
                raise  # else nobody is there to hear it
        finally:
            query.end()

    def stop(self, query_id: str) -> bool:
        """By the id of its ticket. False for one that does not run."""
        try:
            self.running.get(query_id).stop(canceled("the client cancelled the query"))
        except TraceError:
            return False
        return True

    def describe(self, request: QueryRequest, context: grpc.ServicerContext) -> Description:
        """What the answer will look like. Raises TraceError."""
        request.query_id = self.new_id()
        call_options.apply(context.invocation_metadata(), request)
        return self.runner.describe(
            query_text(request, caller(context, QUERY_CALL_FLIGHT_DESCRIBE)), Tie(context).start
        )

    def _again(self, request: QueryRequest, context: grpc.ServicerContext) -> HeldQuery:
        """By the id of its ticket, by which its client cancels it; another one while a query has it that runs."""
        if request.query_id:
            try:
                return self._begun(request, context)
            except TraceError as error:
                if "query_id" not in [violation.field for violation in error.violations]:
                    raise
        request.query_id = self.new_id()
        return self._begun(request, context)

    def _begun(self, request: QueryRequest, context: grpc.ServicerContext) -> HeldQuery:
        asking, tie = caller(context, QUERY_CALL_FLIGHT), Tie(context)
        parts = self.runner.run(query_text(request, asking), tie.start, of_flight_data)
        started = next(parts)
        assert isinstance(started, Started)  # noqa: S101 - the first part of every answer
        return HeldQuery(request.query_id, asking.actor, started, parts, tie)


def _messages(query: HeldQuery) -> Iterator[bytes]:
    begun: list[bytes] = []
    size = 0
    for part in query.parts:
        if isinstance(part, ArrowMessage):
            yield part.data
        if not isinstance(part, ArrowPart):
            continue
        begun.append(part.data)
        size += len(part.data)
        if size > _LARGEST_MESSAGE:
            message = f"one row of the answer is larger than {_LARGEST_MESSAGE >> 20} MiB, the most that Flight is sent"
            raise TraceError(ErrorReason.ERROR_REASON_QUERY_LIMIT, message, metadata={"limit": "row"})
        if part.last:
            yield wire.flight_data(b"".join(begun))
            begun, size = [], 0


def _about(request: QueryRequest, started: Started) -> bytes:
    """What QueryStarted says, as JSON: by which id it is cancelled, the pin, and how far each dataset is complete."""
    about: dict[str, object] = {"query_id": request.query_id, "file_count": started.file_count}
    about |= {"file_bytes": started.file_bytes}
    if started.pin is not None:
        about["as_of"] = pin_text(started.pin)
        about["pin"] = json_format.MessageToDict(started.pin, preserving_proto_field_name=True)
        about["watermarks"] = [
            json_format.MessageToDict(watermark, preserving_proto_field_name=True) for watermark in started.watermarks
        ]
    return json.dumps(about).encode()
