"""How a unit counts what it emitted: exactly as long as that takes little memory, and never too many."""

from collections.abc import Iterable

import pytest

from traceapi.types.v1.scope_pb2 import CursorValue, Scope
from wrapper import unit
from wrapper.unit import EmittedEvents


@pytest.fixture
def emitted(monkeypatch: pytest.MonkeyPatch) -> EmittedEvents:
    """Remembers three keys."""
    monkeypatch.setattr(unit, "_MAX_EXACT_KEYS", 3)
    return EmittedEvents()


def _add(emitted: EmittedEvents, numbers: Iterable[int], *, duplicate: bool | None) -> int:
    for number in numbers:
        emitted.add("parts", Scope(cursor=CursorValue(int64_value=number)), duplicate=duplicate)
    return emitted.count


def test_repetitions_count_once_while_keys_are_remembered(emitted: EmittedEvents) -> None:
    assert _add(emitted, [1, 2, 1], duplicate=False) == 2
    assert _add(emitted, [2, 1], duplicate=True) == 2


def test_beyond_that_what_the_dispatcher_called_new_counts(emitted: EmittedEvents) -> None:
    _add(emitted, [1, 2, 3], duplicate=False)
    assert _add(emitted, [4, 5], duplicate=False) == 5
    assert _add(emitted, [4, 5, 6], duplicate=True) == 5


def test_before_the_dispatcher_has_spoken_a_remembered_key_is_none_that_is_new(emitted: EmittedEvents) -> None:
    _add(emitted, [1, 2, 3], duplicate=False)
    assert _add(emitted, [2, 4], duplicate=None) == 4
