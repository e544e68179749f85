"""What the database's failures mean to a caller."""

import contextlib
from collections.abc import Iterator

import psycopg
import structlog
from psycopg_pool import PoolTimeout, TooManyRequests

from dispatcher.db.batcher import Quarantined
from dispatcher.db.errors import OutcomeUnknown, Overloaded, Stopped, TransactionFailed
from dispatcher.events.accept import ScopeOverlap
from kernel.errors import TraceError
from traceapi.types.v1.errors_pb2 import ErrorReason, ItemError

_log = structlog.get_logger(__name__)

RETRY_AFTER = 0.2
"""Seconds after which a refused caller may come back."""


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Raises what the contract names in place of what the database layer raises."""
    try:
        yield
    except Overloaded as error:
        raise TraceError(ErrorReason.ERROR_REASON_OVERLOADED, str(error), retry_after=RETRY_AFTER) from error
    except OutcomeUnknown as error:
        raise TraceError(ErrorReason.ERROR_REASON_OUTCOME_UNKNOWN, str(error)) from error
    except (Stopped, TransactionFailed, PoolTimeout, TooManyRequests) as error:
        raise TraceError(ErrorReason.ERROR_REASON_UNAVAILABLE, str(error), retry_after=RETRY_AFTER) from error
    except psycopg.DataError as error:  # such as text with a zero byte
        raise TraceError(
            ErrorReason.ERROR_REASON_INVALID_REQUEST, "the request has a value that is not stored"
        ) from error
    except psycopg.OperationalError as error:
        _log.warning("the database refused", error=str(error), sqlstate=error.sqlstate)
        raise TraceError(
            ErrorReason.ERROR_REASON_UNAVAILABLE, "the database does not answer", retry_after=RETRY_AFTER
        ) from error


def quarantined(verdict: Quarantined) -> ItemError:
    """An item that made its transaction fail. The log has the database's words; the caller gets none of them."""
    if isinstance(verdict.error, ScopeOverlap):
        return ItemError(
            reason=ErrorReason.ERROR_REASON_SCOPE_OVERLAP,
            message=f"{verdict.error} overlaps a file that was committed at the same time",
        )
    if verdict.follows:
        return ItemError(
            reason=ErrorReason.ERROR_REASON_EMIT_REFUSED, message="an earlier item of the same task was refused"
        )
    _log.error("item quarantined", error=repr(verdict.error))
    return ItemError(
        reason=ErrorReason.ERROR_REASON_INTERNAL, message="the item could not be stored; see the server's log"
    )
