"""Which state a query reads: the present one, that of a deploy, or the very one that a query read before."""

from ctl.commands.options import LARGEST_NUMBER
from ctl.errors import CtlError, ExitCode
from kernel.pin_text import pin_of
from traceapi.query.v1 import query_service_pb2 as api
from traceapi.types.v1.dataset_pb2 import Pin

_DIGITS = 20

AsOf = int | Pin | None
"""A deploy number, a pin, or (None) now."""


def read_as_of(text: str | None) -> AsOf:
    """As a person writes it; None for now. Raises CtlError."""
    if text is None:
        return None
    if text.isdecimal():
        if len(text) < _DIGITS and 1 <= int(text) <= LARGEST_NUMBER:
            return int(text)
        raise _refused(f"the number of a deploy, from 1 to {LARGEST_NUMBER}")
    try:
        return pin_of(text)
    except ValueError:
        raise _refused("the number of a deploy, nor a pin") from None


def _refused(wanted: str) -> CtlError:
    return CtlError(
        f"--as-of is not {wanted}",
        remedy="`tracectl dag history` has the numbers, `tracectl queries show` the pin of a query",
        exit_code=ExitCode.USAGE,
    )


def give(as_of: AsOf, request: api.QueryRequest | api.ExplainQueryRequest) -> None:
    """Writes it into the request."""
    if isinstance(as_of, int):
        request.deploy_number = as_of
    elif as_of is not None:
        request.pin.CopyFrom(as_of)
