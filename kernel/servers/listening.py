"""Where a server listens, and with which options of grpc."""

from collections.abc import Callable

import grpc

from kernel.channels import MAX_MESSAGE_BYTES
from kernel.errors import MAX_DETAILS_BYTES
from kernel.tls import TlsFiles, is_loopback, split_address

_MAX_UNIX_PATH_BYTES = 107


class ListenError(Exception):
    """A server cannot listen where it was told to; the message says why."""


def server_options(max_message_bytes: int) -> list[tuple[str, int]]:
    """The options of every server."""
    return [
        ("grpc.max_receive_message_length", max_message_bytes),
        ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
        ("grpc.max_metadata_size", 4 * MAX_DETAILS_BYTES),
        # Of a request that nobody reads yet no more than 64 KiB comes: else ever more would, the faster the line is.
        ("grpc.http2.bdp_probe", 0),
        # Two servers on one port would share its calls without a word: the second one must fail.
        ("grpc.so_reuseport", 0),
        # Clients that vanished are noticed, and the pings of kernel.channels are no abuse.
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
        ("grpc.http2.max_pings_without_data", 0),
    ]


def check_listen(listen: str, tls: TlsFiles | None) -> None:
    """ListenError for a malformed address, and for one that others can reach while tokens would travel in the clear."""
    try:
        host, _ = split_address(listen)
    except ValueError as error:
        raise ListenError(str(error)) from error
    if tls is None and not is_loopback(host):
        raise ListenError(f"refused to listen on {listen}: without TLS only 127.0.0.1, ::1 and localhost are allowed")


def bind(
    listen: str,
    tls: TlsFiles | None,
    insecure: Callable[[str], int],
    secure: Callable[[str, grpc.ServerCredentials], int],
) -> str:
    """Bind the port and answer the address that clients use; port 0 becomes the one that was free."""
    if listen.startswith("unix:"):
        return _bind_unix(listen, insecure)
    host, _, _ = listen.rpartition(":")
    try:
        port = insecure(listen) if tls is None else secure(listen, tls.server_credentials())
    except (RuntimeError, OSError, ValueError) as error:
        raise ListenError(f"cannot listen on {listen}: {error}") from error
    if port == 0:
        raise ListenError(f"cannot listen on {listen}")
    return f"{host}:{port}"


def _bind_unix(listen: str, insecure: Callable[[str], int]) -> str:
    path = listen.removeprefix("unix:")
    if len(path.encode()) > _MAX_UNIX_PATH_BYTES:
        raise ListenError(f"the path of the socket has more than {_MAX_UNIX_PATH_BYTES} bytes: {path}")
    try:
        bound = insecure(listen)
    except RuntimeError as error:
        raise ListenError(f"cannot listen on {listen}: {error}") from error
    if not bound:
        raise ListenError(f"cannot listen on {listen}")
    return listen
