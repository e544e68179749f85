"""Page sizes and page tokens: a token is the id of the last item of the page before."""

import uuid
from collections.abc import Sequence

from kernel.errors import TraceError, Violation
from traceapi.types.v1.errors_pb2 import ErrorReason

DEFAULT_PAGE = 100


def page_size(asked: int) -> int:
    """0 is the default; the contract's rules bound the rest."""
    return asked or DEFAULT_PAGE


def task_page_token(ids: Sequence[str], limit: int) -> str:
    """Empty on the last page."""
    return ids[-1] if len(ids) == limit else ""


def uuid_token(token: str) -> str | None:
    """The id in a token, None on the first page."""
    if not token:
        return None
    try:
        return str(uuid.UUID(token))
    except ValueError as error:
        raise invalid_token() from error


def number_token(token: str) -> int | None:
    """The number in a token, None on the first page."""
    if not token:
        return None
    if not token.isdecimal():
        raise invalid_token()
    return int(token)


def invalid_token() -> TraceError:
    return TraceError(
        ErrorReason.ERROR_REASON_INVALID_REQUEST,
        "page_token: not a token that an earlier answer gave",
        violations=[Violation("page_token", "not a token that an earlier answer gave")],
    )
