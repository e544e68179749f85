"""Who may call what: the decision that is made before a request is even parsed."""

import base64
from collections.abc import Iterable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass

from kernel.call_metadata import ACTOR_NAME_KEY, AUTHORIZATION_KEY
from kernel.credentials import Actor, Role, TokenVerifier
from kernel.errors import TraceError, Violation
from traceapi.types.v1 import errors_pb2

HEALTH_CHECK = "/grpc.health.v1.Health/Check"
_REFLECTION = "/grpc.reflection."
_UNNAMED = "unnamed"
_actor: ContextVar[Actor | None] = ContextVar("trace_actor", default=None)


def current_actor() -> Actor:
    """Who makes the call that is being served. LookupError outside of a call, and on listeners without credentials."""
    actor = _actor.get()
    if actor is None:
        raise LookupError("no authenticated call is being served here")
    return actor


def set_current_actor(actor: Actor | None) -> None:
    """Called at the beginning of every call, also of those without an actor: a thread serves many calls in its life."""
    _actor.set(actor)


class AccessPolicy:
    """Which methods each role may call. Nothing is allowed that is not listed, nor what is listed in `kept_from` too.

    An entry is a method (`/traceapi.control.v1.DatasetService/PinDatasets`), a service
    (`/traceapi.control.v1.DatasetService`), a package (`/traceapi.control.v1.`), or `/` for everything.
    """

    def __init__(
        self, allowed: Mapping[Role, frozenset[str]], kept_from: Mapping[Role, frozenset[str]] | None = None
    ) -> None:
        self._allowed, self._kept_from = _beginnings(allowed), _beginnings(kept_from or {})

    def allows(self, role: Role, method: str) -> bool:
        """Whether the role may call the method, by its full name such as `/package.Service/Method`."""
        name = f"{method}/"
        return name.startswith(self._allowed.get(role, ())) and not name.startswith(self._kept_from.get(role, ()))


def _beginnings(listed: Mapping[Role, frozenset[str]]) -> dict[Role, tuple[str, ...]]:
    """How the names begin that are listed. Raises ValueError for an entry that is no name."""
    for role, entries in listed.items():
        for entry in entries:
            if not entry.startswith("/"):
                raise ValueError(f"access policy of role {role.value}: {entry!r} does not begin with '/'")
    return {
        # An entry ends at a border of the name, or one service would open another whose name begins like it.
        role: tuple(entry if entry.endswith(("/", ".")) else f"{entry}/" for entry in sorted(entries))
        for role, entries in listed.items()
    }


@dataclass(frozen=True, slots=True)
class Gate:
    """The decision on one listener. Without a verifier everyone is let in, as nobody: the socket is the identity."""

    verifier: TokenVerifier | None
    policy: AccessPolicy

    def admit(self, method: str, metadata: Iterable[tuple[str, str | bytes]] | None) -> Actor | None:
        """The actor; None for calls that need none. TraceError UNAUTHENTICATED, PERMISSION_DENIED, INVALID_REQUEST."""
        if self.verifier is None or method == HEALTH_CHECK:
            return None
        pairs = list(metadata or ())
        shown = credential(pairs)
        role = self.verifier.role_of(shown.token)
        if role is None:
            raise _unauthenticated("the token is not one that this listener accepts")
        names = [value for key, value in pairs if key == ACTOR_NAME_KEY]
        actor = _named(role, names or ([shown.user] if shown.user else []))
        if not method.startswith(_REFLECTION) and not self.policy.allows(role, method):
            raise TraceError(
                errors_pb2.ERROR_REASON_PERMISSION_DENIED,
                f"role {role.value} may not call {method}",
                metadata={"role": role.value, "method": method},
            )
        return actor


@dataclass(frozen=True, slots=True)
class Credential:
    """What `authorization` carries: a token, and the name that came with it, empty where the scheme has none."""

    token: str
    user: str = ""

    @property
    def bearer(self) -> str:
        """The same as `authorization` for calls to come. A token has no space in it, so the last word is the token."""
        return f"Bearer {self.user} {self.token}" if self.user else f"Bearer {self.token}"


def credential(metadata: Iterable[tuple[str, str | bytes]] | None) -> Credential:
    """Of a call: `Bearer TOKEN`, `Bearer NAME TOKEN` (Credential.bearer), or `Basic` with the token as the password, as
    drivers of databases send it.

    Raises TraceError UNAUTHENTICATED.
    """
    found = [value for key, value in metadata or () if key == AUTHORIZATION_KEY]
    if len(found) != 1 or not isinstance(found[0], str):
        raise _unauthenticated(f"the call carries {len(found) or 'no'} `authorization` metadata; it must carry one")
    scheme, _, value = found[0].partition(" ")
    if scheme.lower() == "bearer":
        user, _, token = value.strip().rpartition(" ")
        return Credential(token, user)
    if scheme.lower() == "basic":
        user, colon, token = _decoded(value).partition(":")
        if colon:
            return Credential(token, user)
    raise _unauthenticated("the `authorization` metadata is neither `Bearer TOKEN` nor `Basic` of a name and the token")


def _decoded(value: str) -> str:
    try:
        text = value.strip().rstrip("=")  # which some clients leave out
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True).decode()
    except ValueError as error:  # binascii.Error and UnicodeDecodeError are ones
        raise _unauthenticated("the `Basic` credential is not base64 of NAME:TOKEN") from error


def _named(role: Role, names: list[str | bytes]) -> Actor:
    name = names[-1] if names else _UNNAMED
    try:
        return Actor(role, name if isinstance(name, str) else "")
    except ValueError as error:
        violation = Violation(ACTOR_NAME_KEY, str(error))
        raise TraceError(
            errors_pb2.ERROR_REASON_INVALID_REQUEST, f"{ACTOR_NAME_KEY}: {error}", violations=(violation,)
        ) from error


def _unauthenticated(message: str) -> TraceError:
    return TraceError(errors_pb2.ERROR_REASON_UNAUTHENTICATED, message)
