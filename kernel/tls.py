"""TLS files, and the rule that credentials never cross a network in the clear."""

import ipaddress
from dataclasses import dataclass
from pathlib import Path

import grpc

PUBLIC_AUTHORITIES = Path("public")
"""In place of an authority's file: the public authorities, of which grpc brings a list."""


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files. A server needs certificate and key; with `authority` it also asks its clients for certificates.

    A client checks the server against `authority` (default: the public authorities that grpc brings), and shows its
    certificate where it has one. The server's certificate must be for the host that is called, or for `server_name`.
    """

    certificate: Path | None = None
    key: Path | None = None
    authority: Path | None = None
    server_name: str = ""

    def __post_init__(self) -> None:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("a TLS certificate and its key are given together")

    def server_credentials(self) -> grpc.ServerCredentials:
        """The credentials of a listener."""
        if self.certificate is None or self.key is None:
            raise ValueError("a listener with TLS needs a certificate and a key")
        pair = (self.key.read_bytes(), self.certificate.read_bytes())
        authority = self.authority.read_bytes() if self.authority else None
        return grpc.ssl_server_credentials([pair], authority, require_client_auth=authority is not None)

    def channel_credentials(self) -> grpc.ChannelCredentials:
        """The credentials of a client."""
        authority, key, certificate = (
            path.read_bytes() if path else None for path in (self.authority, self.key, self.certificate)
        )
        return grpc.ssl_channel_credentials(authority, key, certificate)


def listener_tls(certificate: Path | None, key: Path | None) -> TlsFiles | None:
    """What a listener is configured with; None for one without TLS. ValueError where only one of them is given."""
    return None if certificate is None and key is None else TlsFiles(certificate, key)


def client_tls(authority: Path | None, server_name: str = "") -> TlsFiles | None:
    """What a client is configured with; None for one without TLS. `authority` may be PUBLIC_AUTHORITIES."""
    if authority is None:
        if server_name:
            raise ValueError("a server's name is checked with TLS only, which needs an authority")
        return None
    return TlsFiles(authority=None if authority == PUBLIC_AUTHORITIES else authority, server_name=server_name)


def split_address(address: str) -> tuple[str, int]:
    """Host and port of `host:port` or `[ipv6]:port`; ValueError says what is wrong."""
    host, colon, port = address.strip().rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError(f"address {address!r}: write an IPv6 address as [::1]:7401")
    if not colon or not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ValueError(f"address {address!r}: write it as host:port, such as 127.0.0.1:7401")
    return host, int(port)


def is_loopback(host: str) -> bool:
    """Whether what is sent to this host stays on this machine. Other names than localhost are not looked up."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
