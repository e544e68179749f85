"""Text of unknown origin, made fit for a terminal: what could move its cursor, retitle it or hide text is spelt out."""

import unicodedata

LINES = "\n\t"
"""What to keep in a text of several lines."""

_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
_JOINERS = "\u200c\u200d"
"""Several scripts, and emoji, are wrong without them."""


def printable(text: str, *, keep: str = "") -> str:
    r"""Control characters, escape sequences and marks of direction as `\n`, `\x1b`, `\u202e`; `keep` stays as it is."""
    if text.isprintable():
        return text
    return "".join(letter if letter in keep or not _is_unseen(letter) else _written_out(letter) for letter in text)


def _is_unseen(letter: str) -> bool:
    return unicodedata.category(letter) in _UNSEEN and letter not in _JOINERS


def _written_out(letter: str) -> str:
    return letter.encode("unicode_escape").decode()
