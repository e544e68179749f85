"""Which rows a scope means: bounds on a cursor column, as Arrow computes them."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from kernel.scopes import format_cursor
from traceapi.types.v1.scope_pb2 import CursorValue, Scope

_INT64_MIN = -(1 << 63)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
Cursor = int | str | datetime


@dataclass(frozen=True, slots=True)
class CursorBounds:
    """A closed range of cursor values, all of one type."""

    first: Cursor
    last: Cursor
    text: str

    def __str__(self) -> str:
        return self.text

    @staticmethod
    def of_scope(scope: Scope, *, lookback: int = 0) -> "CursorBounds | None":
        """The bounds of a scope, widened by `lookback` values before its first (integers only); None for partition
        keys."""
        extent = scope.WhichOneof("extent")
        if extent == "cursor":
            first = last = scope.cursor
        elif extent == "range":
            first, last = scope.range.first, scope.range.last
        else:
            return None
        low, high = plain_cursor(first), plain_cursor(last)
        if isinstance(low, int):
            low = max(low - lookback, _INT64_MIN)
        text = format_cursor(first) if first == last else f"{format_cursor(first)}..{format_cursor(last)}"
        return CursorBounds(low, high, text)

    def contains(self, values: "pa.Array[Any]") -> pa.BooleanArray:
        """For each value whether it lies within; null for null. The column must be of the cursor's type, of any
        width."""
        first, last = self._as(values.type)
        if first is None or last is None:
            return pa.array([False] * len(values), pa.bool_())
        return pc.and_(pc.greater_equal(values, first), pc.less_equal(values, last))

    def misses(self, low: object, high: object) -> bool:
        """Whether rows between these statistics of a file all lie outside; False where that cannot be told."""
        try:
            return bool(high < self.first or low > self.last)  # type: ignore[operator]
        except TypeError:
            return False

    def _as(self, data_type: pa.DataType) -> "tuple[pa.Scalar[Any] | None, pa.Scalar[Any] | None]":
        """The bounds as values of the column's type; None where no value of the column can lie within."""
        first, last = self.first, self.last
        if pa.types.is_integer(data_type) and isinstance(first, int) and isinstance(last, int):
            smallest, largest = _integer_limits(data_type)
            if last < smallest or first > largest:
                return None, None
            first, last = max(first, smallest), min(last, largest)
        return pa.scalar(first, data_type), pa.scalar(last, data_type)


def plain_cursor(cursor: CursorValue) -> Cursor:
    """The cursor as Arrow takes it."""
    field = cursor.WhichOneof("value")
    if field == "int64_value":
        return cursor.int64_value
    if field == "string_value":
        return cursor.string_value
    moment = cursor.timestamp_value
    return _EPOCH + timedelta(seconds=moment.seconds, microseconds=moment.nanos // 1000)


def _integer_limits(data_type: pa.DataType) -> tuple[int, int]:
    bits = data_type.bit_width
    if pa.types.is_signed_integer(data_type):
        return -(1 << (bits - 1)), (1 << (bits - 1)) - 1
    return 0, (1 << bits) - 1
