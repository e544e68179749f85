"""What a rollback leaves: the restored version catches up, and is in the end as if it had never been replaced."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.acceptance.conftest import RunningStack
from tests.acceptance.taking_back import take_back

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(400)]

EVENTS = 2_000
RATES = (150, 50)
"""Events per second. How long a deploy and a cutover take depends on the machine: where the events had ended by then,
they come more slowly the next time."""


def test_a_restored_version_ends_equal_to_one_that_was_never_replaced(
    start_stack: Callable[..., RunningStack], tmp_path: Path
) -> None:
    for rate in RATES:
        stack = start_stack(f"home-{rate}")
        found = take_back(stack.connection, tmp_path / f"documents-{rate}", EVENTS, rate)
        assert found.lag > 0, "it had missed some"
        assert found.left == 0
        assert found.rows == 2 * EVENTS // 25
        assert (found.differing, found.digests[0]) == (0, found.digests[1])
        if found.under_traffic:
            return
    raise AssertionError(f"at both of the rates {RATES} the events had ended before it was taken back")
