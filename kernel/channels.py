"""Channels: how a program calls another. Credential, actor name, keepalive, retries and limits are the same for all.

A call that fails as UNAVAILABLE is repeated by grpc itself, with backoff, as the service config says: every mutating
call of the contracts can be repeated, and says by which key. Deadlines are the caller's.
"""

import ipaddress
import json

import grpc

from kernel.call_metadata import AIO_INTERCEPTORS, CallMetadata, SyncMetadataInterceptor
from kernel.errors import MAX_DETAILS_BYTES
from kernel.tls import TlsFiles, is_loopback, split_address

MAX_MESSAGE_BYTES = 64 * 1024 * 1024
_UNIX = ("unix:", "unix-abstract:")
_RETRY_POLICY = {
    "maxAttempts": 5,
    "initialBackoff": "0.1s",
    "maxBackoff": "2s",
    "backoffMultiplier": 2,
    "retryableStatusCodes": ["UNAVAILABLE"],
}


def aio_channel(address: str, *, token: str | None, actor_name: str, tls: TlsFiles | None = None) -> grpc.aio.Channel:
    """A channel for asyncio. Call it in the running loop, close it with `await channel.close()`.

    `address` is `host:port`, several of them separated by commas (IP addresses, used in turn), or `unix:path`. The
    token is never sent in the clear to another machine: that is a ValueError, as is a malformed address.
    """
    target = _target(address, token, tls)
    metadata = CallMetadata(token, actor_name)
    interceptors = [make(metadata) for make in AIO_INTERCEPTORS]
    if tls is None:
        return grpc.aio.insecure_channel(target, _options(address), interceptors=interceptors)
    return grpc.aio.secure_channel(target, tls.channel_credentials(), _options(address), interceptors=interceptors)


def sync_channel(address: str, *, token: str | None, actor_name: str, tls: TlsFiles | None = None) -> grpc.Channel:
    """A channel for threads; otherwise as `aio_channel`."""
    target = _target(address, token, tls)
    if tls is None:
        channel = grpc.insecure_channel(target, _options(address))
    else:
        channel = grpc.secure_channel(target, tls.channel_credentials(), _options(address))
    return grpc.intercept_channel(channel, SyncMetadataInterceptor(CallMetadata(token, actor_name)))


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
    versions = {_ip_version(host, address) for host, _ in parts}
    if len(versions) > 1:
        raise ValueError(f"address {address!r}: a list has either IPv4 or IPv6 addresses")
    if versions == {4}:
        return "ipv4:" + ",".join(f"{_ip(host)}:{port}" for host, port in parts)
    return "ipv6:" + ",".join(f"[{host}]:{port}" for host, port in parts)


def _ip(host: str) -> str:
    return "127.0.0.1" if host == "localhost" else host


def _ip_version(host: str, address: str) -> int:
    try:
        return ipaddress.ip_address(_ip(host)).version
    except ValueError:
        raise ValueError(
            f"address {address!r}: a list has IP addresses; where one name has several servers, write host:port once"
        ) from None


def _options(address: str) -> list[tuple[str, str | int]]:
    policy = "round_robin" if "," in address else "pick_first"
    service_config = {
        "loadBalancingConfig": [{policy: {}}],
        "methodConfig": [{"name": [{}], "retryPolicy": _RETRY_POLICY}],
    }
    return [
        ("grpc.service_config", json.dumps(service_config)),
        ("grpc.enable_retries", 1),
        # A server that comes back is found within seconds; grpc's own limit would be two minutes.
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.min_reconnect_backoff_ms", 1_000),
        ("grpc.max_reconnect_backoff_ms", 5_000),
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
