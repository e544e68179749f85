"""What a rollback may restore, and what is taken together: from values alone."""

from datetime import UTC, datetime, timedelta

import pytest

from dispatcher.collecting.reach import Group, Hold, Output, Retention, Use, groups, held, rollback_window

NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)


def retention(versions: int, days: float) -> Retention:
    return Retention(timedelta(days=1), versions, timedelta(days=days))


def uses(*days_ago: float, dag: str = "chain") -> list[Use]:
    """One DAG version after the other, by how long ago each was followed by the next; and the active one."""
    former = [
        Use(dag, f"{dag}-{number}", number, NOW - timedelta(days=days)) for number, days in enumerate(days_ago, start=1)
    ]
    return [*former, Use(dag, f"{dag}-active", len(days_ago) + 1, None)]


@pytest.mark.parametrize(
    ("versions", "days", "kept"),
    [
        (0, 0, set()),
        (1, 0, {4}),
        (3, 0, {2, 3, 4}),
        (9, 0, {1, 2, 3, 4}),
        (0, 30, {3, 4}),
        (1, 30, {3, 4}),
        (3, 30, {2, 3, 4}),
    ],
)
def test_the_window_has_the_latest_few_and_all_of_late(versions: int, days: float, kept: set[int]) -> None:
    window = rollback_window(uses(400, 90, 29, 1), retention(versions, days), NOW)
    assert window == {f"chain-{number}" for number in kept} | {"chain-active"}


def test_each_dag_has_a_window_of_its_own() -> None:
    found = rollback_window([*uses(90, 60), *uses(50, 40, dag="other")], retention(1, 0), NOW)
    assert found == {"chain-2", "chain-active", "other-2", "other-active"}


def test_the_order_of_activations_counts_not_that_of_versions() -> None:
    """The first version was taken back by a rollback, and replaced again later than the second."""
    again = [
        Use("chain", "first", 3, NOW - timedelta(days=50)),
        Use("chain", "second", 2, NOW - timedelta(days=60)),
        Use("chain", "third", 4, None),
    ]
    assert rollback_window(again, retention(1, 0), NOW) == {"first", "third"}


def test_of_a_removed_dag_only_what_was_active_of_late_is_kept() -> None:
    """There is no rollback of it; but somebody may deploy it again."""
    removed = [Use("chain", str(days), 9 - days, NOW - timedelta(days=days), removed=True) for days in (1, 9)]
    assert rollback_window(removed, retention(5, 3), NOW) == {"1"}


def test_what_shares_a_job_or_a_version_is_one_group() -> None:
    found = groups(
        [
            Output("chain", "left", "parts"),
            Output("chain", "right", "parts"),
            Output("chain", "right", "more"),
            Output("other", "alone", "single"),
        ]
    )
    assert found == [
        Group("chain", frozenset({"left", "right"}), frozenset({"parts", "more"})),
        Group("other", frozenset({"alone"}), frozenset({"single"})),
    ]


def test_a_group_goes_as_a_whole_or_not_at_all() -> None:
    group = Group("chain", frozenset({"left"}), frozenset({"a", "b"}))
    assert held(group, {"a": None, "b": None}) == {}
    assert held(group, {"a": Hold.PINNED, "b": None}) == {"a": Hold.PINNED, "b": Hold.SIBLING}
    assert held(group, {"a": None}) == {"a": Hold.SIBLING, "b": Hold.SIBLING}, "of one that was not judged nobody knows"
