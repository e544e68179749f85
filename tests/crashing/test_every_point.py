"""A program that dies at any crash point of the code leaves everything as before the step or as after it, and what it
was at is done by the same call, made again, or by another one's duty."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.crashing.deaths import POINTS, Seen, died, taken
from tests.crashing.points import points_of_the_code
from tests.crashing.step import Step


@pytest.fixture(scope="module")
def undisturbed() -> dict[Step, Seen]:
    """What steps do where nobody dies, of those that were looked at."""
    return {}


@pytest.mark.parametrize("point", sorted(points_of_the_code()))
async def test_a_death_is_before_or_after_and_is_made_good(
    point: str, new_database: Callable[[], str], tmp_path: Path, undisturbed: dict[Step, Seen]
) -> None:
    assert point in POINTS, "a crash point without a step to die in"
    place = POINTS[point]
    if place.step not in undisturbed:
        undisturbed[place.step] = await taken(point, new_database(), tmp_path / "undisturbed" / "artifacts")
    death = await died(point, new_database(), tmp_path / "killed" / "artifacts", undisturbed[place.step])
    assert (death.moment, death.resumed, death.dangling) == (place.moment, True, 0)
