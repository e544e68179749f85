"""Servers on threads, and their interceptor."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeAlias

import grpc
from google.protobuf.message import Message
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from kernel.channels import MAX_REQUEST_BYTES
from kernel.credentials import Actor, TokenVerifier
from kernel.errors import TraceError
from kernel.servers.access import AccessPolicy, Gate, set_current_actor
from kernel.servers.failures import status_of
from kernel.servers.listening import bind, check_listen, server_options
from kernel.tls import TlsFiles
from kernel.validation import validate_message

# Quoted, because these classes have their parameters in the stubs only.
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"


def sync_server(
    *,
    listen: str,
    verifier: TokenVerifier,
    policy: AccessPolicy,
    tls: TlsFiles | None = None,
    max_message_bytes: int = MAX_REQUEST_BYTES,
    max_threads: int = 64,
) -> "SyncServer":
    """A server for `listen` (`host:port`, port 0 for any). Add servicers to `.server`, then start it.

    A call, also a stream, keeps one of `max_threads` while it lasts; calls beyond that number are refused at once
    (RESOURCE_EXHAUSTED, OVERLOADED to our clients) instead of waiting in memory.
    """
    check_listen(listen, tls)
    return SyncServer(listen, Gate(verifier, policy), tls, max_message_bytes, max_threads)


class SyncServer:
    """A server with its health and reflection services. Add servicers to `.server` before `start()`."""

    def __init__(self, listen: str, gate: Gate, tls: TlsFiles | None, max_message_bytes: int, max_threads: int) -> None:
        self._listen = listen
        self._tls = tls
        self._health = health.HealthServicer(experimental_non_blocking=False)
        self._threads = ThreadPoolExecutor(max_threads, thread_name_prefix="grpc")
        server = grpc.server(
            self._threads,
            interceptors=[_Interceptor(gate)],
            options=server_options(max_message_bytes),
            maximum_concurrent_rpcs=max_threads,
        )
        self._recorder = _RecordingServer(server)
        self.server: grpc.Server = self._recorder

    def start(self) -> str:
        """Bind and serve; answers the bound address. ListenError where that is not possible."""
        names = [*self._recorder.service_names, health.SERVICE_NAME, reflection.SERVICE_NAME]
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self.server)
        reflection.enable_server_reflection(names, self.server)
        address = bind(self._listen, self._tls, self.server.add_insecure_port, self.server.add_secure_port)
        self.server.start()
        for name in names:
            self._health.set(name, health_pb2.HealthCheckResponse.SERVING)
        return address

    def stop(self, grace: float | None = None) -> None:
        """Take no more calls, let those that run end within `grace` seconds, cancel the rest. May be called again.

        Returns when no handler runs any more: what they use can then be closed. Python cannot end a thread, so a
        handler that goes on after its call was cancelled is waited for.
        """
        self._health.enter_graceful_shutdown()
        self.server.stop(grace).wait()
        self._threads.shutdown(wait=True)


class _RecordingServer(grpc.Server):
    """The server itself, and which services were added: grpc does not tell, health and reflection need to know."""

    def __init__(self, server: grpc.Server) -> None:
        self._server = server
        self.service_names: list[str] = []

    def add_generic_rpc_handlers(self, generic_rpc_handlers: Iterable[grpc.GenericRpcHandler]) -> None:
        self._server.add_generic_rpc_handlers(generic_rpc_handlers)

    def add_registered_method_handlers(self, service_name: str, method_handlers: Mapping[str, Handler]) -> None:
        self.service_names.append(service_name)
        self._server.add_registered_method_handlers(service_name, method_handlers)

    def add_insecure_port(self, address: str) -> int:
        return self._server.add_insecure_port(address)

    def add_secure_port(self, address: str, server_credentials: grpc.ServerCredentials) -> int:
        return self._server.add_secure_port(address, server_credentials)

    def start(self) -> None:
        self._server.start()

    def stop(self, grace: float | None) -> Any:
        return self._server.stop(grace)

    def wait_for_termination(self, timeout: float | None = None) -> bool:
        return self._server.wait_for_termination(timeout)


class _Interceptor(grpc.ServerInterceptor):
    """Admits, checks and translates."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate

    def intercept_service(
        self, continuation: Callable[[grpc.HandlerCallDetails], "Handler | None"], details: grpc.HandlerCallDetails
    ) -> "Handler | None":
        try:
            actor = self._gate.admit(details.method, details.invocation_metadata)
        except TraceError as error:
            return _refusal(error, details.method)
        handler = continuation(details)
        return None if handler is None else _guarded(handler, details.method, actor)


def _refusal(error: TraceError, method: str) -> Handler:
    """Ends the call before any of its messages is read: bytes of strangers are not even parsed.

    A handler for streams serves all four kinds of call, which differ on the wire in nothing but how many messages come.
    """

    def refuse(_requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        context.abort_with_status(status_of(error, method))

    return grpc.stream_stream_rpc_method_handler(refuse)


def _guarded(handler: Handler, method: str, actor: Actor | None) -> Handler:
    """The same handler, with the actor known, its requests checked and its failures translated."""
    inner: Any = handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream

    def answer_once(request: Any, context: grpc.ServicerContext) -> Any:
        set_current_actor(actor)
        try:
            return inner(_checked(request), context)
        except Exception as error:  # noqa: BLE001 - whatever it is, the caller gets a status
            _abort(context, error, method)

    def answer_many(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        set_current_actor(actor)
        try:
            yield from inner(_checked(request), context)
        except Exception as error:  # noqa: BLE001 - as above
            _abort(context, error, method)

    kinds: dict[tuple[bool, bool], tuple[Callable[..., Any], Any]] = {
        (False, False): (grpc.unary_unary_rpc_method_handler, answer_once),
        (False, True): (grpc.unary_stream_rpc_method_handler, answer_many),
        (True, False): (grpc.stream_unary_rpc_method_handler, answer_once),
        (True, True): (grpc.stream_stream_rpc_method_handler, answer_many),
    }
    make, behaviour = kinds[handler.request_streaming, handler.response_streaming]
    made: Handler = make(behaviour, handler.request_deserializer, handler.response_serializer)
    return made


def _abort(context: grpc.ServicerContext, error: Exception, method: str) -> None:
    # A servicer's own context.abort raises a bare Exception, after it has set the status of the call. And where the
    # caller has gone there is nobody to tell: reading its requests has failed for that very reason.
    if (type(error) is Exception and not error.args) or not context.is_active():
        raise error
    context.abort_with_status(status_of(error, method))


def _checked(request: Any) -> Any:
    """The request, or the stream of requests, with the contract's rules applied to every message."""
    if isinstance(request, Message):
        validate_message(request)
        return request
    return _checked_stream(request)


def _checked_stream(requests: Iterator[Message]) -> Iterator[Message]:
    for request in requests:
        validate_message(request)
        yield request
