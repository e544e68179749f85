"""Servers on asyncio, and their interceptor."""

import asyncio
import contextlib
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from pathlib import Path
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
from kernel.servers.room import Place, Room
from kernel.tls import TlsFiles
from kernel.validation import validate_message

# Quoted, because these classes have their parameters in the stubs only.
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


def aio_server(
    *,
    listen: str,
    verifier: TokenVerifier,
    policy: AccessPolicy,
    tls: TlsFiles | None = None,
    max_message_bytes: int = MAX_REQUEST_BYTES,
    room: Room | None = None,
) -> "AioServer":
    """A server for `listen` (`host:port`, port 0 for any). Call it in the running loop; add servicers, then start.

    Calls for which there is no `room` are refused with OVERLOADED.
    """
    check_listen(listen, tls)
    return AioServer(listen, Gate(verifier, policy), tls, max_message_bytes, room or Room())


def unix_aio_server(path: Path, *, max_message_bytes: int = MAX_REQUEST_BYTES) -> "AioServer":
    """A server on a unix socket, without credentials: who can open the socket may call. Otherwise as `aio_server`."""
    return AioServer(f"unix:{path}", Gate(None, AccessPolicy({})), None, max_message_bytes, Room())


class AioServer:
    """A server with its health and reflection services. Add servicers to `.server` before `start()`."""

    def __init__(self, listen: str, gate: Gate, tls: TlsFiles | None, max_message_bytes: int, room: Room) -> None:
        self._listen = listen
        self._tls = tls
        self._health = health.aio.HealthServicer()
        self._stopped = False
        server = grpc.aio.server(interceptors=[_Interceptor(gate, room)], options=server_options(max_message_bytes))
        self._recorder = _RecordingServer(server)
        self.server: grpc.aio.Server = self._recorder

    async def start(self) -> str:
        """Bind and serve; answers the bound address. ListenError where that is not possible."""
        names = [*self._recorder.service_names, health.SERVICE_NAME, reflection.SERVICE_NAME]
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self.server)
        reflection.enable_server_reflection(names, self.server)
        address = bind(self._listen, self._tls, self.server.add_insecure_port, self.server.add_secure_port)
        await self.server.start()
        for name in names:
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)
        return address

    async def stop(self, grace: float | None = None) -> None:
        """Take no more calls, let those that run end within `grace` seconds, cancel the rest. May be called again."""
        if not self._stopped:
            self._stopped = True
            await self._health.enter_graceful_shutdown()
        await self.server.stop(grace)


class _RecordingServer(grpc.aio.Server):
    """The server itself, and which services were added: grpc does not tell, health and reflection need to know."""

    def __init__(self, server: grpc.aio.Server) -> None:
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

    async def start(self) -> None:
        await self._server.start()

    async def stop(self, grace: float | None) -> None:
        await self._server.stop(grace)

    async def wait_for_termination(self, timeout: float | None = None) -> bool:
        return await self._server.wait_for_termination(timeout)


class _Interceptor(grpc.aio.ServerInterceptor):
    """Admits, checks and translates. Servicers read requests from the iterator that they are given.

    What `context.read()` would give is not checked, so nothing here uses it.
    """

    def __init__(self, gate: Gate, room: Room) -> None:
        self._gate = gate
        self._room = room

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable["Handler | None"]],
        details: grpc.HandlerCallDetails,
    ) -> "Handler | None":
        try:
            actor = self._gate.admit(details.method, details.invocation_metadata)
        except TraceError as error:
            return _refusal(error, details.method)
        handler = await continuation(details)
        if handler is None:
            return None
        try:
            place = await self._place(handler, details.method)
        except TraceError as error:
            return _refusal(error, details.method)
        return _guarded(handler, details.method, actor, place)

    async def _place(self, handler: Handler, method: str) -> Place:
        """Before anything of the request is read. This task is the call's, and ends with it, however it ends."""
        if handler.request_streaming:
            place = self._room.for_requests()
        else:
            place = await self._room.for_request(method, stream=handler.response_streaming)
        if (call := asyncio.current_task()) is not None:
            call.add_done_callback(lambda _call: place.leave())
        return place


def _refusal(error: TraceError, method: str) -> Handler:
    """Ends the call before any of its messages is read: bytes of strangers are not even parsed.

    A handler for streams serves all four kinds of call, which differ on the wire in nothing but how many messages come.
    """

    async def refuse(_requests: AsyncIterator[bytes], context: Context) -> None:
        await context.abort_with_status(status_of(error, method))

    return grpc.stream_stream_rpc_method_handler(refuse)


def _guarded(handler: Handler, method: str, actor: Actor | None, place: Place) -> Handler:
    """The same handler for one call, with the actor known, its place, requests checked and failures translated."""
    inner: Any = handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream

    # A call that is aborted stays in memory with the frames of its handler until the next full collection of garbage:
    # by then they are to hold nothing of the request, nor the failure, whose frames do.
    async def answer_once(request: Any, context: Context) -> Any:
        set_current_actor(actor)
        try:
            with place:
                return await inner(_checked(_received(request, place)), context)
        except grpc.aio.AbortError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, the caller gets a status
            status = status_of(error, method)
        del request
        await context.abort_with_status(status)

    async def answer_many(request: Any, context: Context) -> None:
        set_current_actor(actor)
        try:
            with place:
                await _write_all(inner(_checked(_received(request, place)), context), context)
                return
        except grpc.aio.AbortError:
            raise
        except Exception as error:  # noqa: BLE001 - as above
            status = status_of(error, method)
        del request
        await context.abort_with_status(status)

    kinds: dict[tuple[bool, bool], tuple[Callable[..., Any], Any]] = {
        (False, False): (grpc.unary_unary_rpc_method_handler, answer_once),
        (False, True): (grpc.unary_stream_rpc_method_handler, answer_many),
        (True, False): (grpc.stream_unary_rpc_method_handler, answer_once),
        (True, True): (grpc.stream_stream_rpc_method_handler, answer_many),
    }
    make, behaviour = kinds[handler.request_streaming, handler.response_streaming]
    made: Handler = make(behaviour, handler.request_deserializer, handler.response_serializer)
    return made


def _received(request: Any, place: Place) -> Any:
    """The request, which has its room now; or the stream of them, which have come to nobody yet."""
    if isinstance(request, Message):
        place.received(request.ByteSize())
    return request


def _checked(request: Any) -> Any:
    """The request, or the stream of requests, with the contract's rules applied to every message."""
    if isinstance(request, Message):
        validate_message(request)
        return request
    return _checked_stream(request)


async def _checked_stream(requests: AsyncIterator[Message]) -> AsyncIterator[Message]:
    async for request in requests:
        validate_message(request)
        yield request


async def _write_all(answer: Any, context: Context) -> None:
    """Send what a servicer answers: an async generator's messages, or whatever a coroutine writes by itself."""
    if inspect.isawaitable(answer):
        await answer
        return
    # Closed at once when the call is cancelled while a message is being sent: its `finally` blocks run in this task.
    async with contextlib.aclosing(answer):
        async for message in answer:
            await context.write(message)
