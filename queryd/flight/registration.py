"""FlightService on a server: one handler for each method of the contract.

The generated code would do, but for DoGet, whose answers are bytes already: what is sent is whatever a method answers.
"""

from typing import Any

import grpc
from arrow_flight import flight_pb2
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from queryd.flight import wire
from queryd.flight.service import FlightService

_SERVICE = flight_pb2.DESCRIPTOR.services_by_name["FlightService"]
_MAKERS = {
    (False, False): grpc.unary_unary_rpc_method_handler,
    (False, True): grpc.unary_stream_rpc_method_handler,
    (True, True): grpc.stream_stream_rpc_method_handler,
}


def add_flight_service(service: FlightService, server: grpc.Server) -> None:
    """Call it before the server is started. What the service does not have is refused by name."""
    handlers = {method.name: _handler(service, method) for method in _SERVICE.methods}
    server.add_registered_method_handlers(_SERVICE.full_name, handlers)


def _handler(service: FlightService, method: MethodDescriptor) -> Any:
    def refuse(_request: object, _context: grpc.ServicerContext) -> Any:
        raise wire.not_offered(method.name)

    make = _MAKERS[method.client_streaming, method.server_streaming]
    behaviour = getattr(service, method.name, refuse)
    return make(behaviour, GetMessageClass(method.input_type).FromString, _sent)


def _sent(answer: Message | bytes) -> bytes:
    return answer if isinstance(answer, bytes) else answer.SerializeToString()
