"""What follows a failed attempt: pure rules of counts and times."""

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

from dispatcher.tasks.state import TaskEvent


class ErrorClass(StrEnum):
    """As ERROR_CLASS_* of the contract and `error_class` of the schema."""

    USER = "user"
    TRANSIENT = "transient"
    OUT_OF_MEMORY = "out_of_memory"
    TIMEOUT = "timeout"
    LOST_LEASE = "lost_lease"
    CRASH = "crash"
    INVALID_OUTPUT = "invalid_output"


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Of (DAG version, job). Both limits count attempts, from 1."""

    max_attempts: int
    max_lost_leases: int
    backoff: timedelta
    max_backoff: timedelta


@dataclass(frozen=True, slots=True)
class AfterFailure:
    """The transition to make, and after what wait the next attempt may start."""

    event: TaskEvent
    wait: timedelta
    reason: str


def after_failure(error_class: ErrorClass, failed_attempts: int, policy: RetryPolicy, jitter: float) -> AfterFailure:
    """`failed_attempts` includes this one; `jitter` in [0, 1) spreads the wait over its upper half."""
    if error_class is ErrorClass.INVALID_OUTPUT:
        return AfterFailure(TaskEvent.FAIL_FINALLY, timedelta(), "its output breaks a declaration")
    if failed_attempts >= policy.max_attempts:
        return AfterFailure(TaskEvent.FAIL_FINALLY, timedelta(), f"{failed_attempts} attempts failed")
    full = min(policy.backoff * 2 ** min(failed_attempts - 1, 30), policy.max_backoff)
    return AfterFailure(TaskEvent.FAIL, full * (0.5 + jitter / 2), "")


def after_lost_lease(lost_leases: int, policy: RetryPolicy) -> AfterFailure:
    """`lost_leases` includes this one. The next attempt may start at once: the lease's length was wait enough."""
    if lost_leases >= policy.max_lost_leases:
        return AfterFailure(TaskEvent.LOSE_LEASE_FINALLY, timedelta(), f"{lost_leases} leases were lost")
    return AfterFailure(TaskEvent.LOSE_LEASE, timedelta(), "")
