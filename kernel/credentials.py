"""Who calls: roles, actors, and the token files that prove a role.

A token is made once, in a file that only its owner can read; servers hold its SHA-256 alone, so that neither a server's
configuration nor its memory gives the token away. Tokens have 256 random bits, which is why a plain digest is enough.
"""

import hashlib
import hmac
import os
import re
import secrets
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

_TOKEN = re.compile(r"[\x21-\x7e]{16,512}", re.ASCII)
_DIGEST = re.compile(r"[0-9a-f]{64}", re.ASCII)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,127}", re.ASCII)
_MAX_FILE_BYTES = 1024


class Role(StrEnum):
    """What a credential lets its holder do; each listener says which roles it accepts."""

    USER = "user"
    WORKER = "worker"
    QUERYD = "queryd"


@dataclass(frozen=True, slots=True)
class Actor:
    """Who did something. The role is proven by the credential, the name is what the caller says of itself."""

    role: Role
    name: str

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ValueError("a name is 1 to 128 letters, digits, '.', '_', '@', '-' and begins with a letter or digit")

    def __str__(self) -> str:
        return f"{self.role.value}:{self.name}"


class CredentialError(Exception):
    """A token file that cannot be used; the message says what to do."""


def create_token_file(path: Path) -> str:
    """Make a new token, mode 0600; answers it. FileExistsError where the file is there: a token is never replaced."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    token = secrets.token_urlsafe(32)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(token + "\n")
        file.flush()
        os.fsync(descriptor)
    return token


def read_token(path: Path) -> str:
    """The token in a file, which must be a regular file that nobody but its owner can read."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise CredentialError(f"cannot read the credential {path}: {error.strerror}") from error
    try:
        # Asked of the open file, so that it cannot be exchanged between the check and the reading.
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise CredentialError(f"the credential {path} is not a regular file")
        mode = stat.S_IMODE(status.st_mode)
        if mode & 0o177:
            raise CredentialError(f"others may use the credential {path} (mode {mode:04o}): run chmod 600 {path}")
        content = os.read(descriptor, _MAX_FILE_BYTES + 1)
    finally:
        os.close(descriptor)
    token = content.decode("ascii", "replace").strip()
    if len(content) > _MAX_FILE_BYTES or not _TOKEN.fullmatch(token):
        raise CredentialError(f"the credential {path} holds no token: 16 to 512 visible characters in one line")
    return token


def token_digest(token: str) -> str:
    """SHA-256 of a token, hexadecimal: all that a server knows of it."""
    return hashlib.sha256(token.encode()).hexdigest()


class TokenVerifier:
    """The tokens that a listener accepts, by their digests. No two roles share one.

    A role has one token; while it is being exchanged it has the old one and the new one, so that nobody is refused.
    """

    def __init__(self, digests: Mapping[Role, str | tuple[str, ...]]) -> None:
        self._roles: dict[str, Role] = {}
        for role, of_role in digests.items():
            for digest in (of_role,) if isinstance(of_role, str) else of_role:
                if not _DIGEST.fullmatch(digest):
                    raise ValueError(f"the token digest of role {role.value} is not 64 lowercase hexadecimal digits")
                if self._roles.setdefault(digest, role) is not role:
                    raise ValueError("two roles have the same token; make one for each")

    def role_of(self, token: str) -> Role | None:
        """The role that this token proves; None for a token that is not accepted."""
        offered = token_digest(token)
        found: Role | None = None
        for digest, role in self._roles.items():
            # Every digest is compared, in constant time: the time taken says nothing about what is accepted.
            if hmac.compare_digest(offered, digest):
                found = role
        return found
