"""Rows of a query's Arrow answer as text, CSV or JSON, without losing a digit.

Decimals keep every digit, 64-bit integers are never passed through a float, times keep their unit. What JSON has no
word for is a string: decimals, times and intervals (ISO 8601, infinite ones `infinity`), bytes (base64), and the floats
NaN and Infinity.
"""

import base64
import json
import math
from collections.abc import Iterator, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import pyarrow as pa

from ctl.exact import Moment, exact_value, holds_times_of_day, interval_text


def unique_names(schema: pa.Schema) -> list[str]:
    """Column names; a repeated one gets a number, because a JSON object holds each name once."""
    names: list[str] = []
    for name in schema.names:
        candidate, number = name, 1
        while candidate in names:
            candidate, number = f"{name}_{number}", number + 1
        names.append(candidate)
    return names


def python_rows(batch: pa.RecordBatch) -> Iterator[tuple[Any, ...]]:
    """The rows of a batch as Python values."""
    return zip(*(_column(batch, index) for index in range(batch.num_columns)), strict=True)


def _column(batch: pa.RecordBatch, index: int) -> list[Any]:
    column = batch.column(index)
    if holds_times_of_day(column.type):
        return [exact_value(scalar) for scalar in column]
    try:
        values: list[Any] = column.to_pylist()
    except (OverflowError, ValueError):  # a year beyond Python's, or nanoseconds
        return [exact_value(scalar) for scalar in column]
    return values


def text_of(value: Any) -> str:
    """One value for a table or a CSV field; `None` is the caller's."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Decimal):
        return format(value, "f")
    if isinstance(value, datetime):
        return _iso(value, " ")
    if isinstance(value, Moment):
        return value.text(" ")
    if isinstance(value, pa.MonthDayNano):
        return interval_text(value)
    if isinstance(value, (date, time)):
        return value.isoformat()
    if isinstance(value, bytes):
        return "0x" + value.hex()
    if isinstance(value, (list, tuple, dict)):
        return json_text(value)
    return str(value)


def json_text(value: Any) -> str:
    return json.dumps(json_value(value), ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def json_value(value: Any) -> Any:
    """One value as JSON has it; see the module's own text."""
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {math.inf: "Infinity", -math.inf: "-Infinity"}.get(value, "NaN")
    if isinstance(value, datetime):
        return _iso(value, "T")
    if isinstance(value, Moment):
        return value.text("T")
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, dict):
        return {str(key): json_value(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)) and not isinstance(value, pa.MonthDayNano):
        return [json_value(item) for item in value]
    if isinstance(value, timedelta):
        return str(value)
    return text_of(value)


def _iso(value: datetime, separator: str) -> str:
    """With a zone in UTC as `Z`, without one as it is."""
    text = value.isoformat(sep=separator)
    return text.removesuffix("+00:00") + "Z" if text.endswith("+00:00") else text


def csv_line(fields: Sequence[str | None]) -> str:
    """One line by RFC 4180. NULL is nothing at all, the empty string is `""`, so the two stay apart."""
    return ",".join(_csv_field(field) for field in fields) + "\n"


def _csv_field(text: str | None) -> str:
    if text is None:
        return ""
    if text == "" or any(letter in text for letter in '",\r\n'):
        return '"' + text.replace('"', '""') + '"'
    return text


def is_number(kind: pa.DataType) -> bool:
    """Whether a table puts it to the right."""
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))
