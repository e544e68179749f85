"""From what a text demands of rows to the bounds within which files are looked for.

A file holds rows of its scope only, so one whose scope lies outside of the bounds has no row that counts. A dataset
that is mentioned several times is read within bounds that hold all of its mentions.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal, InvalidOperation
from typing import Any

from kernel.dataset_sql import folded
from queryd.terms import Constant, Term
from traceapi.types.v1.dag_pb2 import CursorSpec
from traceapi.types.v1.dataset_pb2 import CursorBounds
from traceapi.types.v1.scope_pb2 import CursorType, CursorValue

_INT64 = range(-(2**63), 2**63)
_MOST_DIGITS = 19
# Between these every integer is a DOUBLE of its own, and no DOUBLE of a larger one.
_EXACT = range(-(2**53) + 1, 2**53)
_INTEGER = re.compile(r"[+-]?[0-9]{1,19}", re.ASCII)
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", re.ASCII)
_TIMESTAMP = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[ T][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?(Z|[+-][0-9]{2}(:[0-9]{2})?)?", re.ASCII
)
_INTEGER_CASTS = frozenset(
    {"", "bigint", "int8", "int64", "long", "integer", "int", "int4", "int32", "ubigint", "hugeint"}
)
_TIMESTAMP_CASTS = frozenset(
    {"", "timestamp", "timestamptz", "timestamp with time zone", "timestamp_us", "datetime", "date"}
)

Ends = tuple[Any, Any]
"""The largest value of a cursor that is not above a constant, and the smallest not below it."""
Convert = Callable[[Sequence[Constant]], list[Ends] | None]
"""Those of all constants that are compared together; None where there is no such thing for one of them."""


def cursor_bounds(mentions: Sequence[Sequence[Term]], cursor: CursorSpec) -> CursorBounds | None:
    """Bounds that hold every mention; None where one of them may read everything."""
    convert = _CONVERT.get(cursor.type)
    if convert is None or not mentions:
        return None
    column = folded(cursor.column)
    ranges = [_range([term for term in terms if term.column == column], convert) for terms in mentions]
    lowers, uppers = [lower for lower, _ in ranges], [upper for _, upper in ranges]
    bounds = CursorBounds()
    if None not in lowers:
        bounds.lower.CopyFrom(_value(min(lowers)))
    if None not in uppers:
        bounds.upper.CopyFrom(_value(max(uppers)))
    return bounds if bounds.HasField("lower") or bounds.HasField("upper") else None


def may_be_bounded(cursor: CursorSpec, schema: Mapping[str, str]) -> bool:
    """Whether rows with these columns, by name and in the contract's words, can be told by their cursor. Where they
    have no such column, a text that names it means one of a SELECT around."""
    words = {folded(name): word for name, word in schema.items()}
    return words.get(folded(cursor.column), "") in _COLUMNS.get(cursor.type, ())


def bounds_by_column(mentions: Sequence[Sequence[Term]]) -> Iterator[tuple[str, CursorBounds]]:
    """The same before the cursor is known: by each column that it may be, for each type that it may have."""
    for column in dict.fromkeys(term.column for terms in mentions[:1] for term in terms):
        for cursor_type in _CONVERT:
            bounds = cursor_bounds(mentions, CursorSpec(column=column, type=cursor_type))
            if bounds is not None:
                yield column, bounds


def _range(terms: Iterable[Term], convert: Convert) -> tuple[Any, Any]:
    """The lowest and the highest value that meet all terms; None where there is no end."""
    lowest, highest = [], []
    for term in terms:
        known = convert(term.values)
        if not known:
            continue
        if term.operator == "between":
            lowest.append(known[0][0])
            highest.append(known[1][1])
        if term.operator in (">=", "in"):
            lowest.append(min(floor for floor, _ in known))
        if term.operator in ("<=", "in"):
            highest.append(max(ceiling for _, ceiling in known))
    return max(lowest, default=None), min(highest, default=None)


def _each(constants: Sequence[Constant], convert: Callable[[Constant], Ends | None]) -> list[Ends] | None:
    found = [ends for constant in constants if (ends := convert(constant)) is not None]
    return found if len(found) == len(constants) else None


def _integers(constants: Sequence[Constant]) -> list[Ends] | None:
    """Where one of them is a DOUBLE the engine compares all as such, and the cursor's values too: those that differ by
    less than a DOUBLE can tell are equal then."""
    found = _each(constants, _integer)
    if found is None or not any(map(_may_be_double, constants)):
        return found
    return found if all(floor in _EXACT and ceiling in _EXACT for floor, ceiling in found) else None


def _may_be_double(constant: Constant) -> bool:
    """Whether the engine takes it for one, or for a DECIMAL with no room for the digits of a cursor."""
    text = constant.text.lower()
    return constant.kind == "NUMERIC" and ("e" in text or sum(map(str.isdigit, text)) > _MOST_DIGITS)


def _integer(constant: Constant) -> Ends | None:
    if constant.cast not in _INTEGER_CASTS or (constant.kind == "STRING" and not _INTEGER.fullmatch(constant.text)):
        return None
    try:
        number = Decimal(constant.text)
        if number.adjusted() > _MOST_DIGITS:
            return None  # as an integer it would have as many digits as its exponent says, and take as long to make
        floor, ceiling = (int(number.to_integral_value(rounding)) for rounding in (ROUND_FLOOR, ROUND_CEILING))
    except (InvalidOperation, OverflowError, ValueError):
        return None
    if constant.cast and floor != ceiling:
        return None  # casts round
    return (floor, ceiling) if floor in _INT64 and ceiling in _INT64 else None


def _timestamps(constants: Sequence[Constant]) -> list[Ends] | None:
    return _each(constants, _timestamp)


def _timestamp(constant: Constant) -> Ends | None:
    """Times without a zone are UTC, which is the engine's."""
    pattern = _DATE if constant.cast == "date" else _TIMESTAMP
    if constant.kind != "STRING" or constant.cast not in _TIMESTAMP_CASTS:
        return None
    if not pattern.fullmatch(constant.text) and not _DATE.fullmatch(constant.text):
        return None
    try:
        moment = datetime.fromisoformat(constant.text)
        moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        return None
    return moment, moment


# Not of strings: the order of scopes is that of their composed form, which those of rows need not have.
_CONVERT: dict[CursorType.ValueType, Convert] = {
    CursorType.CURSOR_TYPE_INT64: _integers,
    CursorType.CURSOR_TYPE_TIMESTAMP: _timestamps,
}
# Whose values compare with constants as those of scopes do.
_COLUMNS: Mapping[CursorType.ValueType, frozenset[str]] = {
    CursorType.CURSOR_TYPE_INT64: frozenset({"int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"}),
    CursorType.CURSOR_TYPE_TIMESTAMP: frozenset({"timestamp"}),
}


def _value(value: int | datetime) -> CursorValue:
    if isinstance(value, int):
        return CursorValue(int64_value=value)
    made = CursorValue()
    made.timestamp_value.FromDatetime(value)
    return made
