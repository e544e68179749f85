"""How many units a worker wants at hand."""

from wrapper.window import Window


def test_without_a_past_the_window_is_the_least() -> None:
    assert Window(16).size(0.0) == 16


def test_the_window_is_what_ended_within_the_last_half_second() -> None:
    window = Window(4)
    for milliseconds in range(1000):
        window.note(milliseconds / 1000, live=True)
    assert window.size(1.0) == 500
    assert window.size(1.25) == 250
    assert window.size(9.0) == 4


def test_a_window_that_is_larger_than_the_least_says_when_to_look_again() -> None:
    window = Window(2)
    assert window.shrinks_within(0.0) is None
    for _ in range(3):
        window.note(0.0, live=False)
    assert window.shrinks_within(0.0) == 0.5
    assert window.shrinks_within(0.6) is None


def test_where_live_tasks_come_among_others_less_is_taken_ahead() -> None:
    window = Window(4)
    for milliseconds in range(1000):
        window.note(milliseconds / 1000, live=milliseconds == 0)
    assert window.size(1.0) == 50
    assert window.shrinks_within(1.0) == 0.05
    for milliseconds in range(1000, 3000):
        window.note(milliseconds / 1000, live=False)
    assert window.size(3.0) == 500
