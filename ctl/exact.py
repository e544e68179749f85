"""Values of an Arrow column that Python's own types cannot hold, as exact text: years beyond 9999 or before 1,
nanoseconds, DuckDB's infinite times, the time 24:00, and intervals.
"""

from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import pyarrow as pa

_UNITS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_DAY_SECONDS = 86_400
_CYCLE_DAYS = 146_097  # the Gregorian calendar repeats itself every 400 years
_INFINITE = {2**63 - 1: "infinity", 1 - 2**63: "-infinity"}
_INFINITE_DATES = {2**31 - 1: "infinity", 1 - 2**31: "-infinity"}


@dataclass(frozen=True, slots=True)
class Moment:
    """A date and a time by ISO 8601, to be put together. With a zone they are in UTC."""

    date: str
    time: str
    zone: str = ""

    def text(self, separator: str) -> str:
        return f"{self.date}{separator}{self.time}{self.zone}"


def exact_value(scalar: Any) -> Any:
    """One value of any type. Times are Moment or text, what Python can hold is as pyarrow has it."""
    kind = scalar.type
    if not scalar.is_valid:
        return None
    if pa.types.is_timestamp(kind):
        return _moment(scalar.value, kind)
    if pa.types.is_date32(kind):
        return _INFINITE_DATES.get(scalar.value) or _date_text(scalar.value)
    if pa.types.is_time(kind):
        return _time_text(scalar.value, _UNITS[kind.unit])
    if pa.types.is_map(kind):
        return [tuple(exact_value(entry[name]) for name in entry) for entry in scalar.values]
    if pa.types.is_struct(kind):
        return {name: exact_value(item) for name, item in scalar.items()}
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return [exact_value(item) for item in scalar.values]
    return scalar.as_py()


def holds_times_of_day(kind: Any) -> bool:
    """Whether pyarrow would answer 00:00 for a 24:00 in values of this type, without a word."""
    return pa.types.is_time(kind) or any(holds_times_of_day(kind.field(index).type) for index in range(kind.num_fields))


def interval_text(interval: Any) -> str:
    """Months, days and nanoseconds by ISO 8601, each with its own sign: `P1Y2M3DT4H`."""
    years, months = _divided(interval.months, 12)
    minutes, nanoseconds = _divided(interval.nanoseconds, 60 * 10**9)
    hours, minutes = _divided(minutes, 60)
    days = "".join(f"{number}{unit}" for number, unit in ((years, "Y"), (months, "M"), (interval.days, "D")) if number)
    times = "".join(f"{number}{unit}" for number, unit in ((hours, "H"), (minutes, "M")) if number)
    if nanoseconds:
        seconds, fraction = divmod(abs(nanoseconds), 10**9)
        sign = "-" if nanoseconds < 0 else ""
        times += f"{sign}{seconds}" + (f".{fraction:09}".rstrip("0") if fraction else "") + "S"
    return f"P{days}" + (f"T{times}" if times or not days else "") + ("0S" if not times and not days else "")


def _divided(number: int, by: int) -> tuple[int, int]:
    """Towards zero, so that both parts have the number's sign."""
    whole, rest = divmod(abs(number), by)
    return (whole, rest) if number >= 0 else (-whole, -rest)


def _moment(value: int, kind: Any) -> Moment | str:
    if value in _INFINITE:
        return _INFINITE[value]
    units = _UNITS[kind.unit]
    days, rest = divmod(value, units * _DAY_SECONDS)
    return Moment(_date_text(days), _time_text(rest, units), "Z" if kind.tz else "")


def _date_text(days: int) -> str:
    """Days since 1970. Years by ISO 8601: the year before 1 is 0000, those of more than four digits have a sign."""
    cycle, rest = divmod(days, _CYCLE_DAYS)
    day = date(1970, 1, 1) + timedelta(rest)
    year = day.year + 400 * cycle
    return (f"{year:04}" if 0 <= year <= 9999 else f"{year:+05}") + f"-{day.month:02}-{day.day:02}"


def _time_text(value: int, units: int) -> str:
    """As Python writes it, with nine digits where six do not hold the fraction."""
    seconds, fraction = divmod(value, units)
    nanoseconds = fraction * (10**9 // units)
    digits = f".{nanoseconds:09}" if nanoseconds % 1000 else f".{nanoseconds // 1000:06}" if nanoseconds else ""
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}{digits}"
