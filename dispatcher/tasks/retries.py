"""What follows a failed attempt: one table of policies by class of error, and pure rules of counts and times.

Two limits end a task. `max_attempts` of its job is what people set: it counts every failed attempt, of whatever class,
and nothing goes beyond it. The class has a limit of its own, `most`, which counts the failures of that class alone:
code does not mend itself, while a network comes back. So a class can only end a task sooner. Lost leases stand beside:
they say nothing about the task's code, are not counted against `max_attempts`, and have their own limit.

The wait before the next attempt is exponential, as the class has failed before, with jitter: tasks that failed together
do not come back together. It begins with the job's `retry_backoff`, times what the class says, and never exceeds its
`max_retry_backoff`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from types import MappingProxyType

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


MAX_LOST_LEASES = 10
"""What a job's row says at its deploy, since a document cannot say otherwise yet."""


@dataclass(frozen=True, slots=True)
class ClassPolicy:
    """What a class of error means for the attempts that follow."""

    most: int | None
    """Failures of this class after which the task is DEAD, from 1; None: only `max_attempts` ends it."""
    reason: str
    """Why it is DEAD then. `{count}` stands for how many there were."""
    first_wait: float = 1
    """Before the second attempt, in `retry_backoff`s."""
    growth: float = 2
    """By which the wait grows with each further failure of the class."""
    counted: bool = True
    """Against `max_attempts`."""


POLICIES: Mapping[ErrorClass, ClassPolicy] = MappingProxyType(
    {
        # The same code with the same inputs: it may have met what is not its own, but hardly three times.
        ErrorClass.USER: ClassPolicy(3, "{count} attempts failed in its code"),
        # It passes: soon, mostly, so the first wait is short; where it does not, the waits are soon long.
        ErrorClass.TRANSIENT: ClassPolicy(None, "", first_wait=0.5, growth=3),
        # Its own bound would be met again; a machine that had no memory left gets time to have some.
        ErrorClass.OUT_OF_MEMORY: ClassPolicy(2, "{count} attempts failed for want of memory", first_wait=10),
        # Each one costs a worker as long as the timeout is; what was too slow gets time to recover.
        ErrorClass.TIMEOUT: ClassPolicy(3, "{count} attempts exceeded their timeout", first_wait=5),
        # As the code's own errors, but a process may also be ended from outside.
        ErrorClass.CRASH: ClassPolicy(5, "{count} attempts ended with their process"),
        # The next attempt would emit the same.
        ErrorClass.INVALID_OUTPUT: ClassPolicy(1, "its output breaks a declaration"),
        # Its worker died or was cut off; the lease's length was wait enough.
        ErrorClass.LOST_LEASE: ClassPolicy(MAX_LOST_LEASES, "{count} leases were lost", first_wait=0, counted=False),
    }
)


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Of (DAG version, job). Both limits count attempts, from 1."""

    max_attempts: int
    max_lost_leases: int
    backoff: timedelta
    max_backoff: timedelta


@dataclass(frozen=True, slots=True)
class Failures:
    """Of one task, the one that has just come included; both begin anew when a person retries it, or a source gets
    on."""

    of_all: int
    of_class: int


@dataclass(frozen=True, slots=True)
class AfterFailure:
    """The transition to make, and after what wait the next attempt may start."""

    event: TaskEvent
    wait: timedelta
    reason: str


def after_failure(error_class: ErrorClass, failures: Failures, policy: RetryPolicy, jitter: float) -> AfterFailure:
    """`jitter` in [0, 1) spreads the wait over its upper half."""
    of_class = POLICIES[error_class]
    if of_class.most is not None and failures.of_class >= of_class.most:
        return AfterFailure(TaskEvent.FAIL_FINALLY, timedelta(), of_class.reason.format(count=failures.of_class))
    if of_class.counted and failures.of_all >= policy.max_attempts:
        return AfterFailure(TaskEvent.FAIL_FINALLY, timedelta(), f"{failures.of_all} attempts failed")
    seconds = policy.backoff.total_seconds() * of_class.first_wait * of_class.growth ** (failures.of_class - 1)
    full = min(seconds, policy.max_backoff.total_seconds())
    return AfterFailure(TaskEvent.FAIL, timedelta(seconds=full * (0.5 + jitter / 2)), "")


def after_lost_lease(lost_leases: int, policy: RetryPolicy) -> AfterFailure:
    """`lost_leases` includes this one. The next attempt may start at once."""
    if lost_leases >= policy.max_lost_leases:
        reason = POLICIES[ErrorClass.LOST_LEASE].reason.format(count=lost_leases)
        return AfterFailure(TaskEvent.LOSE_LEASE_FINALLY, timedelta(), reason)
    return AfterFailure(TaskEvent.LOSE_LEASE, timedelta(), "")
