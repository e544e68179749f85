"""A service on a server: one handler for each method of its contract.

The generated code would do, but for the methods that send rows, whose answers are bytes already: what is sent is
whatever a method answers.
"""

from collections.abc import Callable
from typing import Any

import grpc
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

_MAKERS = {
    (False, False): grpc.unary_unary_rpc_method_handler,
    (False, True): grpc.unary_stream_rpc_method_handler,
    (True, True): grpc.stream_stream_rpc_method_handler,
}


def add_service(
    service: object, contract: ServiceDescriptor, server: grpc.Server, refusal: Callable[[str], Exception]
) -> None:
    """Call it before the server is started. What the service does not have is refused, by the method's name."""
    handlers = {method.name: _handler(service, method, refusal) for method in contract.methods}
    server.add_registered_method_handlers(contract.full_name, handlers)


def _handler(service: object, method: MethodDescriptor, refusal: Callable[[str], Exception]) -> Any:
    def refuse(_request: object, _context: grpc.ServicerContext) -> Any:
        raise refusal(method.name)

    make = _MAKERS[method.client_streaming, method.server_streaming]
    behaviour = getattr(service, method.name, refuse)
    return make(behaviour, GetMessageClass(method.input_type).FromString, _sent)


def _sent(answer: Message | bytes) -> bytes:
    return answer if isinstance(answer, bytes) else answer.SerializeToString()
