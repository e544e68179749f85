"""Words of a document to numbers and durations, and back. Stricter than YAML 1.1, where `010` is 8 and `1:30` is 90."""

import re

from google.protobuf.duration_pb2 import Duration

_DECIMAL = re.compile(r"[-+]?(0|[1-9][0-9]*(_[0-9]+)*)")
_NUMBER = re.compile(r"[-+]?[0-9]+(\.[0-9]*)?([eE][-+]?[0-9]{1,3})?")
_DURATION = re.compile(r"([0-9]{1,12}(\.[0-9]{1,9})?(d|h|ms|us|m|s))+")
_DURATION_PART = re.compile(r"([0-9]+)(?:\.([0-9]+))?(d|h|ms|us|m|s)")
_NANOS = {"d": 86_400_000_000_000, "h": 3_600_000_000_000, "m": 60_000_000_000, "s": 10**9, "ms": 10**6, "us": 10**3}

# Beyond it a number of a `config`, kept as a double, no longer names one integer.
MAX_EXACT_INTEGER = 2**53


def decimal_integer(text: str) -> int | None:
    """The integer that `text` writes in plain decimal digits (`501_000` too), or None."""
    return int(text) if len(text) <= 40 and _DECIMAL.fullmatch(text) else None


def finite_number(text: str) -> float | None:
    """The finite number that `text` writes, or None."""
    if len(text) > 60 or not _NUMBER.fullmatch(text):
        return None
    number = float(text)
    return number if abs(number) != float("inf") else None


def duration_nanos(text: str) -> int | None:
    """Nanoseconds of `300s`, `1.5h`, `1h30m`, `250ms`; None for anything else, and for parts of a nanosecond."""
    if len(text) > 100 or not _DURATION.fullmatch(text):
        return None
    total = 0
    for whole, fraction, unit in _DURATION_PART.findall(text):
        part, rest = divmod(int((fraction or "0").ljust(9, "0")) * _NANOS[unit], 10**9)
        if rest:
            return None
        total += int(whole) * _NANOS[unit] + part
    return total


def duration(nanos: int) -> Duration:
    return Duration(seconds=nanos // 10**9, nanos=nanos % 10**9)


def duration_text(nanos: int) -> str:
    """The one way of writing a duration in seconds: `300s`, `0.25s`."""
    seconds, rest = divmod(nanos, 10**9)
    fraction = f"{rest:09d}".rstrip("0")
    return f"{seconds}.{fraction}s" if fraction else f"{seconds}s"
