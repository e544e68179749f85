"""Who asks, by which call, and with what."""

from dataclasses import dataclass

import grpc

from kernel.servers import current_actor
from traceapi.control.v1.query_record_pb2 import QueryCall

_CLIENT_LETTERS = 255


@dataclass(frozen=True, slots=True)
class Caller:
    """`actor` such as `user:alice`; `client` is what the client's library calls itself, empty where it does not."""

    actor: str
    call: QueryCall.ValueType
    client: str = ""


def caller(context: grpc.ServicerContext, call: QueryCall.ValueType) -> Caller:
    """Of the call that is being served."""
    found = (value for key, value in context.invocation_metadata() if key == "user-agent")
    client = next(found, "")
    return Caller(str(current_actor()), call, client[:_CLIENT_LETTERS] if isinstance(client, str) else "")
