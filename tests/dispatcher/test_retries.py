"""The rules of what follows a failed attempt: pure, so every class is gone through."""

import re
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import pytest

from dispatcher.tasks.retries import (
    MAX_LOST_LEASES,
    POLICIES,
    ErrorClass,
    Failures,
    RetryPolicy,
    after_failure,
    after_lost_lease,
)
from dispatcher.tasks.state import TaskEvent
from traceapi.types.v1 import task_pb2

DOCS = Path(__file__).parents[2] / "docs" / "capabilities" / "dag_configuration.md"
SECOND = timedelta(seconds=1)
GENEROUS = RetryPolicy(max_attempts=100, max_lost_leases=MAX_LOST_LEASES, backoff=SECOND, max_backoff=SECOND * 10**9)
LATEST = 1 - 2**-53
"""The largest jitter that there is: with it a wait is as long as it can be."""
FAILED = [error_class for error_class in ErrorClass if error_class is not ErrorClass.LOST_LEASE]
RETRIED = [error_class for error_class in FAILED if error_class is not ErrorClass.INVALID_OUTPUT]


def _waits(error_class: ErrorClass, policy: RetryPolicy, jitter: float = LATEST) -> list[timedelta]:
    """The waits after the first, second, ... failure of one class, until the task is DEAD."""
    waits: list[timedelta] = []
    for count in range(1, policy.max_attempts + 1):
        after = after_failure(error_class, Failures(count, count), policy, jitter)
        if after.event is TaskEvent.FAIL_FINALLY:
            return waits
        waits.append(after.wait)
    raise AssertionError(f"{error_class} has more attempts than people allow")


def test_there_is_a_policy_for_each_class_of_the_contract() -> None:
    names = {name.removeprefix("ERROR_CLASS_").lower() for name in task_pb2.ErrorClass.DESCRIPTOR.values_by_name}
    assert {error_class.value for error_class in POLICIES} == names - {"unspecified"}


@pytest.mark.parametrize(
    ("error_class", "attempts"),
    [
        (ErrorClass.USER, 3),
        (ErrorClass.TRANSIENT, 100),
        (ErrorClass.OUT_OF_MEMORY, 2),
        (ErrorClass.TIMEOUT, 3),
        (ErrorClass.CRASH, 5),
        (ErrorClass.INVALID_OUTPUT, 1),
    ],
)
def test_each_class_has_its_own_number_of_attempts(error_class: ErrorClass, attempts: int) -> None:
    assert len(_waits(error_class, GENEROUS)) == attempts - 1


@pytest.mark.parametrize("error_class", FAILED)
@pytest.mark.parametrize("most", [1, 2, 4])
def test_no_class_goes_beyond_what_people_allow(error_class: ErrorClass, most: int) -> None:
    policy = RetryPolicy(most, MAX_LOST_LEASES, SECOND, SECOND * 60)
    assert len(_waits(error_class, policy)) <= most - 1


@pytest.mark.parametrize("error_class", FAILED)
def test_failures_of_all_classes_together_have_the_limit_that_people_set(error_class: ErrorClass) -> None:
    after = after_failure(error_class, Failures(of_all=100, of_class=1), GENEROUS, 0)
    assert after.event is TaskEvent.FAIL_FINALLY


@pytest.mark.parametrize(
    ("error_class", "seconds"),
    [
        (ErrorClass.USER, [1, 2]),
        (ErrorClass.TRANSIENT, [0.5, 1.5, 4.5, 13.5, 40.5]),
        (ErrorClass.OUT_OF_MEMORY, [10]),
        (ErrorClass.TIMEOUT, [5, 10]),
        (ErrorClass.CRASH, [1, 2, 4, 8]),
    ],
)
def test_waits_grow_by_the_factor_of_their_class(error_class: ErrorClass, seconds: list[float]) -> None:
    waits = [wait.total_seconds() for wait in _waits(error_class, GENEROUS)[: len(seconds)]]
    assert waits == pytest.approx(seconds)


@pytest.mark.parametrize("error_class", RETRIED)
def test_a_wait_grows_with_the_failures_of_its_own_class_alone(error_class: ErrorClass) -> None:
    alone = after_failure(error_class, Failures(of_all=1, of_class=1), GENEROUS, 0.5)
    after_others = after_failure(error_class, Failures(of_all=50, of_class=1), GENEROUS, 0.5)
    assert alone == after_others


@pytest.mark.parametrize("error_class", RETRIED)
def test_no_wait_is_longer_than_the_limit(error_class: ErrorClass) -> None:
    limit = SECOND * 3
    waits = _waits(error_class, RetryPolicy(100, MAX_LOST_LEASES, SECOND, limit))
    assert max(waits) <= limit
    assert all(earlier <= later for earlier, later in pairwise(waits))


def test_the_longest_settings_overflow_nothing() -> None:
    day = timedelta(days=1)
    assert max(_waits(ErrorClass.TRANSIENT, RetryPolicy(100, MAX_LOST_LEASES, day, day))) <= day


@pytest.mark.parametrize("error_class", RETRIED)
def test_jitter_spreads_a_wait_over_its_upper_half(error_class: ErrorClass) -> None:
    full = _waits(error_class, GENEROUS)[0]
    shortest, middle = (_waits(error_class, GENEROUS, jitter)[0] for jitter in (0, 0.5))
    assert (shortest, middle) == (full / 2, full * 3 / 4)


@pytest.mark.parametrize(
    ("error_class", "reason"),
    [
        (ErrorClass.USER, "3 attempts failed in its code"),
        (ErrorClass.TRANSIENT, "100 attempts failed"),
        (ErrorClass.OUT_OF_MEMORY, "2 attempts failed for want of memory"),
        (ErrorClass.TIMEOUT, "3 attempts exceeded their timeout"),
        (ErrorClass.CRASH, "5 attempts ended with their process"),
        (ErrorClass.INVALID_OUTPUT, "its output breaks a declaration"),
    ],
)
def test_a_dead_task_says_of_what(error_class: ErrorClass, reason: str) -> None:
    last = POLICIES[error_class].most or GENEROUS.max_attempts
    assert after_failure(error_class, Failures(last, last), GENEROUS, 0).reason == reason


def test_lost_leases_wait_for_nothing_and_have_a_limit_of_their_own() -> None:
    policy = RetryPolicy(1, 4, SECOND, SECOND)
    after = [after_lost_lease(lost, policy) for lost in (1, 3, 4)]
    assert [found.event for found in after] == [
        TaskEvent.LOSE_LEASE,
        TaskEvent.LOSE_LEASE,
        TaskEvent.LOSE_LEASE_FINALLY,
    ]
    assert {found.wait for found in after} == {timedelta()}
    assert after[-1].reason == "4 leases were lost"


def test_the_page_says_what_the_table_says() -> None:
    row = re.compile(r"^\| `(\w+)` \| [^|]+ \| ([^|]+) \| ([\d.]+) \| ([\d.]+) \| (yes|no) \|$", re.MULTILINE)
    assert row.findall(DOCS.read_text()) == [
        (
            error_class.value,
            str(policy.most or "`max_attempts`"),
            f"{policy.first_wait:g}",
            f"{policy.growth:g}",
            "yes" if policy.counted else "no",
        )
        for error_class, policy in POLICIES.items()
    ]
