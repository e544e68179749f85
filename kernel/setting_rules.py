"""What values of the programs' settings must be, as `Rule` wants it: a ValueError says what is wrong.

They look at files of this machine, because a certificate that cannot be read is a fault of the configuration; none
looks at the network.
"""

from collections.abc import Sized
from pathlib import Path

from kernel.channels import check_address
from kernel.credentials import CredentialError, Role, TokenVerifier, read_token
from kernel.servers.listening import ListenError, check_listen
from kernel.settings import Example, variable_of
from kernel.tls import PUBLIC_AUTHORITIES, client_tls, listener_tls, split_address

EXAMPLE_DIGESTS = Example(("0123456789abcdef" * 4,))


def check_listen_address(address: str) -> None:
    """`host:port`."""
    split_address(address)


def check_token_file(path: Path) -> None:
    """A regular file of mode 0600 with a token in it."""
    try:
        read_token(path)
    except CredentialError as error:
        raise ValueError(str(error)) from error


def check_digests(digests: tuple[str, ...]) -> None:
    """The digests of one role's tokens."""
    if not digests:
        raise ValueError("names no digest")
    TokenVerifier({Role.USER: digests})


def check_readable(path: Path) -> None:
    """A file that this program can read."""
    try:
        with path.open("rb"):
            pass
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}") from error


def check_readable_authority(path: Path) -> None:
    """A PEM file, or the word for the public authorities."""
    if path != PUBLIC_AUTHORITIES:
        check_readable(path)


def check_filled(value: Sized) -> None:
    """Something, not nothing."""
    if not len(value):
        raise ValueError("must not be empty")


def check_listener(setting: str, listen: str, certificate: Path | None, key: Path | None) -> None:
    """Across settings: certificate and key are given together, and without them only this machine is listened to."""
    try:
        check_listen(listen, listener_tls(certificate, key))
    except ListenError as error:
        raise ValueError(f"{variable_of(setting)}: {error}; set TRACE_TLS_CERTIFICATE and TRACE_TLS_KEY") from error
    except ValueError as error:
        raise ValueError(f"TRACE_TLS_CERTIFICATE, TRACE_TLS_KEY: {error}") from error


def check_dispatcher(address: str, authority: Path | None, name: str) -> None:
    """Across settings: the dispatcher's address, and by what its certificate is checked."""
    try:
        check_address(address, client_tls(authority, name))
    except ValueError as error:
        raise ValueError(f"TRACE_DISPATCHER_ADDRESS: {error}") from error
