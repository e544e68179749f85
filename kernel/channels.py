"""Channels: how a program calls another. Credential, actor name, keepalive, retries and limits are the same for all.

A call that fails as UNAVAILABLE is repeated by grpc itself, with backoff, as the service config says: every mutating
call of the contracts can be repeated, and says by which key. Deadlines are the caller's.
"""

import ipaddress
import json

import grpc

from kernel.call_metadata import AIO_INTERCEPTORS, CallMetadata, SyncMetadataInterceptor
from kernel.errors import MAX_DETAILS_BYTES
from kernel.repeats import RepeatWhenTold
from kernel.tls import TlsFiles, is_loopback, split_address

MAX_MESSAGE_BYTES = 64 * 1024 * 1024
MAX_REQUEST_BYTES = 16 * 1024 * 1024
"""What servers accept, if they do not say otherwise."""
_UNIX = ("unix:", "unix-abstract:")
# grpc makes no more than five attempts. The waits between them add up to four seconds, several times what it takes to
# find a server again that has been restarted: a client may have lost the first of two before the second one goes.
_RETRY_POLICY = {
    "maxAttempts": 5,
    "initialBackoff": "0.3s",
    "maxBackoff": "2s",
    "backoffMultiplier": 2,
    "retryableStatusCodes": ["UNAVAILABLE"],
}


def aio_channel(address: str, *, token: str | None, actor_name: str, tls: TlsFiles | None = None) -> grpc.aio.Channel:
    """A channel for asyncio. Call it in the running loop, close it with `await channel.close()`.

    `address` is `host:port`, several of them separated by commas (IP addresses), or `unix:path`. Where there are
    several servers, of a list or of one name, calls go to all that answer in turn. The token is never sent in the clear
    to another machine: that is a ValueError, as is a malformed address.
    """
    target, options = _target(address, token, tls), _options(address, tls)
    metadata = CallMetadata(token, actor_name)
    interceptors = [make(metadata) for make in AIO_INTERCEPTORS]
    if tls is None:
        return grpc.aio.insecure_channel(target, options, interceptors=interceptors)
    return grpc.aio.secure_channel(target, tls.channel_credentials(), options, interceptors=interceptors)


def sync_channel(address: str, *, token: str | None, actor_name: str, tls: TlsFiles | None = None) -> grpc.Channel:
    """A channel for threads; otherwise as `aio_channel`. It also repeats the calls that a full server refused."""
    target, options = _target(address, token, tls), _options(address, tls)
    if tls is None:
        channel = grpc.insecure_channel(target, options)
    else:
        channel = grpc.secure_channel(target, tls.channel_credentials(), options)
    metadata = SyncMetadataInterceptor(CallMetadata(token, actor_name))
    return grpc.intercept_channel(channel, RepeatWhenTold(), metadata)


def check_address(address: str, tls: TlsFiles | None) -> None:
    """ValueError where no channel with a token can be made to this address."""
    _target(address, "a token", tls)


def _target(address: str, token: str | None, tls: TlsFiles | None) -> str:
    """The address in grpc's own words."""
    if address.startswith(_UNIX):
        return address
    parts = [split_address(part) for part in address.split(",")]
    for host, _ in parts:
        if token is not None and tls is None and not is_loopback(host):
            raise ValueError(f"address {address!r}: a credential is sent to another machine ({host}) only with TLS")
    if len(parts) == 1:
        return f"dns:///{address.strip()}"
    if tls is not None and not tls.server_name:
        raise ValueError(
            f"address {address!r}: with TLS, say which name the certificates of a list's servers have in common"
        )
    versions = {_ip_version(host, address) for host, _ in parts}
    if len(versions) > 1:
        raise ValueError(f"address {address!r}: a list has either IPv4 or IPv6 addresses")
    if versions == {4}:
        return "ipv4:" + ",".join(f"{_ip(host)}:{port}" for host, port in parts)
    return "ipv6:" + ",".join(f"[{host}]:{port}" for host, port in parts)


def _ip(host: str) -> str:
    return "127.0.0.1" if host == "localhost" else host


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _ip_version(host: str, address: str) -> int:
    try:
        return ipaddress.ip_address(_ip(host)).version
    except ValueError:
        raise ValueError(
            f"address {address!r}: a list has IP addresses; where one name has several servers, write host:port once"
        ) from None


def _several_servers(address: str) -> bool:
    """Whether there may be more than one server: of a list, or of a name, to which name servers may give several."""
    if address.startswith(_UNIX):
        return False
    hosts = [split_address(part)[0] for part in address.split(",")]
    return len(hosts) > 1 or not (_is_ip(hosts[0]) or is_loopback(hosts[0]))


def _options(address: str, tls: TlsFiles | None) -> list[tuple[str, str | int]]:
    policy = "round_robin" if _several_servers(address) else "pick_first"
    name = tls.server_name if tls is not None else ""
    service_config = {
        "loadBalancingConfig": [{policy: {}}],
        "methodConfig": [{"name": [{}], "retryPolicy": _RETRY_POLICY}],
    }
    return [
        *([("grpc.ssl_target_name_override", name)] if name else []),
        ("grpc.service_config", json.dumps(service_config)),
        ("grpc.enable_retries", 1),
        # grpc repeats only what it has kept; at its own 256 KiB a larger call would fail at each restart of a server.
        ("grpc.per_rpc_retry_buffer_size", MAX_REQUEST_BYTES),
        # A server that comes back is found within a second; grpc's own limit would be two minutes. One attempt to
        # connect may take longer than that: `min` is, in spite of its name, the time that each is given.
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.min_reconnect_backoff_ms", 5_000),
        ("grpc.max_reconnect_backoff_ms", 1_000),
        # A peer that vanished without a word is noticed by pings, on idle streams too.
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
        ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
        # All violations of a faulty request travel in a trailer, base64 within it.
        ("grpc.max_metadata_size", 4 * MAX_DETAILS_BYTES),
    ]
