"""Where things stand in a document, and the list of what is wrong with it.

A path is a tuple of keys and list indexes from the top of the document: `("jobs", "ranges", "config", "size")`.
"""

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import islice

from dispatcher.dag.model import Problem

Path = tuple[str | int, ...]

# More than anybody reads at once. Bounds the work that a document made of nothing but faults can cause.
MAX_PROBLEMS = 200
# Looking for a similar name costs up to a millisecond per name: only so often, among so many.
_MAX_SUGGESTIONS = 40
_MAX_CANDIDATES = 500

_PLAIN_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
_LINE_BREAK = re.compile("\r\n|[\n\r\x85\u2028\u2029]")


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """A place in a text, both from 1; 0 and 0 where there is no text."""

    line: int
    column: int


NOWHERE = Position(0, 0)


@dataclass(frozen=True, slots=True)
class _Place:
    key: Position
    value: Position
    text: str | None  # of a scalar
    style: str | None


class Places:
    """The position of every key and value of a document; all nowhere for one that was given as a message."""

    def __init__(self, text: str = "") -> None:
        self._lines = _LINE_BREAK.split(text) if text else []
        self._places: dict[Path, _Place] = {}
        self._keys: dict[Path, list[str]] = {}

    def add(
        self, path: Path, key: Position, value: Position, text: str | None = None, style: str | None = None
    ) -> None:
        self._places[path] = _Place(key, value, text, style)
        if path and isinstance(path[-1], str):
            self._keys.setdefault(path[:-1], []).append(path[-1])

    def key(self, path: Path) -> Position:
        """Where the key at `path` stands, or the nearest one above it that is there."""
        place = self._nearest(path)
        return place.key if place else NOWHERE

    def has(self, path: Path) -> bool:
        """Whether the document says something at `path`, be it nothing (`key:`)."""
        return path in self._places

    def keys_below(self, path: Path) -> list[str]:
        """The keys of the mapping at `path` in the order in which they were read: what is merged in comes last."""
        return self._keys.get(path, [])

    def value(self, path: Path) -> Position:
        """Where the value at `path` begins, or the key of the nearest thing above it that is there."""
        place = self._places.get(path)
        return place.value if place else self.key(path)

    def inside(self, path: Path, line: int, column: int) -> Position:
        """The place of a line and column of the text that is the value at `path`: exact where the text stands there
        as it is (`|` blocks, and one line in quotes or without), else the beginning of the value."""
        place = self._places.get(path)
        if place is None or place.text is None:
            return self.value(path)
        wanted = place.text.split("\n")[line - 1] if line <= place.text.count("\n") + 1 else ""
        if place.style == "|":
            row = place.value.line + line
            raw = self._lines[row - 1] if row <= len(self._lines) else ""
            return Position(row, len(raw) - len(wanted) + column) if raw.endswith(wanted) else place.value
        start = place.value.column - 1 + (place.style in ("'", '"'))
        if "\n" in place.text or not self._lines[place.value.line - 1].startswith(wanted, start):
            return place.value
        return Position(place.value.line, start + column)

    def _nearest(self, path: Path) -> _Place | None:
        for length in range(len(path), -1, -1):
            if place := self._places.get(path[:length]):
                return place
        return None


@dataclass(slots=True)
class Findings:
    """Collects the problems of one document.

    A section in which a fault was found is *broken*: what could be read of it is not what its author meant, so checks
    that rest on it are left out. Otherwise one mistyped key would be reported as everything that is missing for it.
    """

    places: Places
    file_name: str = ""
    _problems: dict[Problem, None] = field(default_factory=dict)
    _faulty: set[Path] = field(default_factory=set)
    _broken: set[Path] = field(default_factory=set)
    _broken_above: set[Path] = field(default_factory=set)
    _suggestions: int = 0

    def at_key(self, path: Path, message: str, remedy: str, *, owned: bool = False) -> None:
        self.add(self.places.key(path), path, message, remedy, owned=owned)

    def at_value(self, path: Path, message: str, remedy: str) -> None:
        self.add(self.places.value(path), path, message, remedy)

    def add(self, position: Position, path: Path, message: str, remedy: str, *, owned: bool = False) -> None:
        if not self.full:
            problem = Problem(position.line, position.column, shown_path(path), message, remedy, self.file_name, owned)
            self._problems[problem] = None
            self._faulty.update(path[:length] for length in range(len(path) + 1))

    @property
    def full(self) -> bool:
        """As many as are looked for; there may be more."""
        return len(self._problems) >= MAX_PROBLEMS

    @property
    def problems(self) -> tuple[Problem, ...]:
        return tuple(sorted(self._problems))

    def mark_broken(self, path: Path) -> None:
        self._broken.add(path)
        self._broken_above.update(path[:length] for length in range(len(path)))

    def faulty(self, path: Path) -> bool:
        """A problem was reported at `path` or below it."""
        return path in self._faulty

    def broken(self, path: Path) -> bool:
        """A fault was found at `path`, below it or above it."""
        if path in self._broken or path in self._broken_above:
            return True
        return any(path[:length] in self._broken for length in range(len(path)))

    def unread(self, path: Path) -> bool:
        """A fault was found at `path` itself, or above it: nothing is known of what stands there."""
        return any(path[:length] in self._broken for length in range(len(path) + 1))

    def nearest(self, name: str, names: Iterable[str]) -> str | None:
        """The name that was probably meant."""
        self._suggestions += 1
        if self._suggestions > _MAX_SUGGESTIONS or len(name) > 255:
            return None
        similar = (other for other in names if abs(len(other) - len(name)) <= max(2, len(name) // 2))
        close = difflib.get_close_matches(name, list(islice(similar, _MAX_CANDIDATES)), n=1, cutoff=0.6)
        return close[0] if close else None

    def suggestion(self, name: str, names: Iterable[str], otherwise: str) -> str:
        """`did you mean ...?`, or `otherwise` where no name is near."""
        near = self.nearest(name, names)
        return f"did you mean `{near}`?" if near is not None else otherwise


def shown_path(path: Path) -> str:
    """The path as people read it: `jobs.ranges.inputs."eth.blocks".trigger`, `sort[0]`."""
    shown = ""
    for part in path:
        if isinstance(part, int):
            shown += f"[{part}]"
            continue
        clipped = clip(part)
        shown += ("." if shown else "") + (clipped if _PLAIN_KEY.fullmatch(clipped) else f'"{clipped}"')
    return shown


def clip(text: str, length: int = 80) -> str:
    """Text of a document, short enough for a message."""
    return text if len(text) <= length else text[: length - 1] + "…"


def listed(words: Iterable[str]) -> str:
    """`a`, `b` or `c`."""
    marked = [f"`{word}`" for word in words]
    return marked[0] if len(marked) == 1 else ", ".join(marked[:-1]) + " or " + marked[-1]
