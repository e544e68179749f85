"""How many wake-ups may be out over SQS: as many as are answered within a second, as far as that can be told."""

from dispatcher.wakeups.sqs import Pace


def _noted(*answers: tuple[float, int]) -> Pace:
    pace = Pace()
    for at, count in answers:
        pace.note("default", count, at)
    return pace


def test_few_answers_count_as_they_were_within_the_last_second() -> None:
    """Ten tasks that end together are no rate: of long ones no more are asked for than there is room for."""
    pace = _noted((0.0, 7), (0.9, 10))
    assert pace.of("default", 0.95) == 17
    assert pace.of("default", 1.5) == 10
    assert pace.of("default", 2.0) == 0


def test_of_many_the_latest_say_how_many_there_would_be_in_a_second() -> None:
    """A burst is at its speed as soon as it has gone on for a moment, not after a second."""
    pace = _noted((0.0, 10), (0.05, 20), (0.1, 40))
    assert pace.of("default", 0.1) == 4 * 70


def test_a_rate_that_falls_is_that_of_the_last_second() -> None:
    pace = _noted((0.1, 400), (0.2, 400), (0.8, 60))
    assert pace.of("default", 0.9) == 860


def test_queues_have_a_pace_of_their_own() -> None:
    assert _noted((0.0, 100)).of("other", 0.0) == 0
