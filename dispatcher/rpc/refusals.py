"""Refusals on record: what somebody asked for and was not given, for what there was at that time.

Only such refusals, by their canonical code; that nothing of a DAG is active
is such a state, though nothing is found. A request that breaks a rule or names what is not there says nothing of
Trace's state; and a call that meets another one, or a database that is away, is repeated and has an entry of its own.
"""

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass

import grpc

from dispatcher.audit import store as audit
from dispatcher.audit.entries import Action, Refusal
from dispatcher.db.pool import Pool
from kernel.errors import TraceError
from kernel.servers import current_actor
from traceapi.types.v1.errors_pb2 import ErrorReason

_OF_STATE = frozenset({grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.ABORTED})


@dataclass(frozen=True, slots=True)
class Asked:
    """What for, as far as the call says it: the DAG, or a deployment of it; a version by its number."""

    action: Action
    dag: str = ""
    deployment_id: str = ""
    to_version: int = 0
    plan_id: str | None = None


def _of_state(error: TraceError) -> bool:
    if error.reason == ErrorReason.ERROR_REASON_BUNDLE_MISSING:  # that is the request's
        return False
    return error.code in _OF_STATE or error.reason == ErrorReason.ERROR_REASON_DAG_NOT_ACTIVE


@contextlib.asynccontextmanager
async def refusals_on_record(pool: Pool, asked: Asked) -> AsyncIterator[None]:
    """Around all transactions of a call: what it was refused with is recorded when they are rolled back."""
    try:
        yield
    except TraceError as error:
        if _of_state(error):
            await audit.record_refusal(
                pool,
                Refusal(
                    asked.action,
                    str(current_actor()),
                    error.reason_name,
                    error.message,
                    dag=asked.dag or (None if asked.deployment_id else error.metadata.get("dag")),
                    plan_id=asked.plan_id,
                    to_version_id=asked.deployment_id or None,
                    to_version=asked.to_version or None,
                ),
            )
        raise
