"""What a rollback leaves: the restored version catches up, and is in the end as if it had never been replaced."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.acceptance.conftest import RunningStack
from tests.acceptance.taking_back import take_back

pytestmark = pytest.mark.acceptance

EVENTS = 2_000


def test_a_restored_version_ends_equal_to_one_that_was_never_replaced(
    start_stack: Callable[..., RunningStack], tmp_path: Path
) -> None:
    stack = start_stack()
    found = take_back(stack.connection, tmp_path / "documents", EVENTS)
    assert found.under_traffic, "it was taken back while events came"
    assert found.lag > 0, "it had missed some"
    assert found.left == 0
    assert found.rows == 2 * EVENTS // 25
    assert (found.differing, found.digests[0]) == (0, found.digests[1])
