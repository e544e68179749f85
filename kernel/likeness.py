"""Names that people mistype: which known one was probably meant."""

import difflib
from collections.abc import Iterable

_LONGEST = 255
"""Comparing takes time with the square of the length, and no name is longer."""


def nearest(name: str, known: Iterable[str], likeness: float = 0.6) -> str:
    """`; did you mean ...?` where a known name is like this one, from 0 for anything to 1 for itself only."""
    found = difflib.get_close_matches(name, known, n=1, cutoff=likeness) if len(name) <= _LONGEST else []
    return f"; did you mean {found[0]}?" if found else ""
