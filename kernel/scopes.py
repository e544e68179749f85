"""Scopes and cursors: the order-preserving key, and the text that people read and write.

Everything that is stored or compared uses the key of a cursor value, whose order as unsigned bytes is the order of the
values. The rules are the contract's (`protos/traceapi/types/v1/scope.proto`), the test vectors
`protos/testdata/scope_keys.json`; other languages repeat them from there. Pure functions: no clock, no I/O.
"""

import re
import unicodedata
from datetime import UTC, datetime, timedelta
from enum import IntEnum
from typing import NamedTuple, TypeAlias

from google.protobuf.timestamp_pb2 import Timestamp

from kernel.errors import TraceError, Violation
from traceapi.types.v1 import errors_pb2, scope_pb2
from traceapi.types.v1.scope_pb2 import CursorValue, Scope

CursorType: TypeAlias = scope_pb2.CursorType.ValueType

MAX_STRING_BYTES = 255
_INT64_BIAS = 1 << 63
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
# The years that a Timestamp can say, 0001 to 9999.
_FIRST_MICROSECOND = (datetime.min.replace(tzinfo=UTC) - _EPOCH) // _MICROSECOND
_LAST_MICROSECOND = (datetime.max.replace(tzinfo=UTC) - _EPOCH) // _MICROSECOND
_INTEGER = re.compile(r"[+-]?[0-9]+(_[0-9]+)*", re.ASCII)
_TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d{1,6})?([Zz]|[+-]\d\d:\d\d)", re.ASCII)
_TYPE_OF_FIELD = {
    "int64_value": scope_pb2.CURSOR_TYPE_INT64,
    "timestamp_value": scope_pb2.CURSOR_TYPE_TIMESTAMP,
    "string_value": scope_pb2.CURSOR_TYPE_STRING,
}


class ScopeError(TraceError, ValueError):
    """A scope or cursor that breaks the contract (INVALID_REQUEST), or is of the wrong type (SCOPE_MISMATCH)."""


class ScopeKind(IntEnum):
    """What an extent is; the numbers are stored."""

    CURSOR = 1
    RANGE = 2
    PARTITION = 3


class ScopeKey(NamedTuple):
    """A scope in the form that is stored and compared. A cursor and a partition key have `first == last`."""

    kind: ScopeKind
    first: bytes
    last: bytes
    revision: int


def cursor_key(value: CursorValue) -> bytes:
    """The key of a cursor value."""
    field = value.WhichOneof("value")
    if field == "int64_value":
        return _int64_key(value.int64_value)
    if field == "timestamp_value":
        return _int64_key(_microseconds(value.timestamp_value))
    if field == "string_value":
        return _string_key(value.string_value, "string_value")
    raise _invalid("value", "a cursor has no value")


def cursor_value(cursor_type: CursorType, key: bytes) -> CursorValue:
    """The cursor value of a key: the inverse of `cursor_key`."""
    value = CursorValue()
    _fill_cursor(value, cursor_type, key)
    return value


def scope_key(scope: Scope) -> ScopeKey:
    """The key of a scope; refuses a range whose ends differ in type or stand in the wrong order."""
    extent = scope.WhichOneof("extent")
    if extent == "cursor":
        key = cursor_key(scope.cursor)
        return ScopeKey(ScopeKind.CURSOR, key, key, scope.revision)
    if extent == "range":
        cursor_type_of(scope)
        first, last = cursor_key(scope.range.first), cursor_key(scope.range.last)
        if last < first:
            raise _invalid("range.last", f"{format_scope(scope)}: the last cursor is below the first")
        return ScopeKey(ScopeKind.RANGE, first, last, scope.revision)
    if extent == "partition_key":
        key = _string_key(scope.partition_key, "partition_key")
        return ScopeKey(ScopeKind.PARTITION, key, key, scope.revision)
    raise _invalid("extent", "a scope has no extent")


def typed_scope_key(scope: Scope) -> tuple[ScopeKey, CursorType]:
    """`scope_key` and `cursor_type_of` at once: one cursor is read once."""
    if scope.WhichOneof("extent") == "cursor" and scope.cursor.WhichOneof("value") == "int64_value":
        key = _int64_key(scope.cursor.int64_value)
        return ScopeKey(ScopeKind.CURSOR, key, key, scope.revision), scope_pb2.CURSOR_TYPE_INT64
    return scope_key(scope), cursor_type_of(scope)


def scope(cursor_type: CursorType, key: ScopeKey) -> Scope:
    """The scope of a key in a dataset of this cursor type: the inverse of `scope_key`."""
    message = Scope()
    fill_scope(message, cursor_type, key)
    return message


def fill_scope(message: Scope, cursor_type: CursorType, key: ScopeKey) -> None:
    """The same into a message that is there, and empty."""
    message.revision = key.revision
    if key.kind is ScopeKind.CURSOR:
        _fill_cursor(message.cursor, cursor_type, key.first)
    elif key.kind is ScopeKind.PARTITION:
        message.partition_key = _key_string(key.first)
    else:
        _fill_cursor(message.range.first, cursor_type, key.first)
        _fill_cursor(message.range.last, cursor_type, key.last)


def cursor_type_of(scope: Scope) -> CursorType:
    """The type of a scope's cursors; CURSOR_TYPE_UNSPECIFIED for a partition key."""
    extent = scope.WhichOneof("extent")
    if extent == "cursor":
        return _type_of(scope.cursor)
    if extent == "range":
        first, last = _type_of(scope.range.first), _type_of(scope.range.last)
        if first != last:
            raise _mismatch(f"the range begins with {_type_name(first)} and ends with {_type_name(last)}")
        return first
    return scope_pb2.CURSOR_TYPE_UNSPECIFIED


def format_cursor(value: CursorValue) -> str:
    """For people: `500000`, `2024-05-01T12:00:00Z`, or the string itself. `parse_cursor` reads it back."""
    field = value.WhichOneof("value")
    if field == "int64_value":
        return str(value.int64_value)
    if field == "timestamp_value":
        moment = _EPOCH + _microseconds(value.timestamp_value) * _MICROSECOND
        return moment.replace(tzinfo=None).isoformat() + "Z"
    return value.string_value


def format_scope(scope: Scope) -> str:
    """For people: `500000`, `500000..500099`, or the partition key."""
    extent = scope.WhichOneof("extent")
    if extent == "cursor":
        return format_cursor(scope.cursor)
    if extent == "range":
        return f"{format_cursor(scope.range.first)}..{format_cursor(scope.range.last)}"
    return scope.partition_key


def parse_cursor(text: str, cursor_type: CursorType) -> CursorValue:
    """What a person wrote, as a cursor. An int64 may have `_` between digits; a timestamp names its zone."""
    if cursor_type == scope_pb2.CURSOR_TYPE_INT64:
        if not _INTEGER.fullmatch(text):
            raise _invalid("cursor", f"{text!r} is not an integer; write one such as 500000")
        number = int(text)
        if not -_INT64_BIAS <= number < _INT64_BIAS:
            raise _invalid("cursor", f"{text} does not fit into 64 bits")
        return CursorValue(int64_value=number)
    if cursor_type == scope_pb2.CURSOR_TYPE_TIMESTAMP:
        return CursorValue(timestamp_value=_timestamp(_parse_microseconds(text)))
    if cursor_type == scope_pb2.CURSOR_TYPE_STRING:
        return CursorValue(string_value=_string_key(text, "cursor").decode())
    raise _mismatch("a dataset without a cursor has partition keys only")


def _fill_cursor(value: CursorValue, cursor_type: CursorType, key: bytes) -> None:
    if cursor_type == scope_pb2.CURSOR_TYPE_STRING:
        value.string_value = _key_string(key)
        return
    if cursor_type not in (scope_pb2.CURSOR_TYPE_INT64, scope_pb2.CURSOR_TYPE_TIMESTAMP):
        raise _mismatch("a dataset without a cursor has partition keys only")
    if len(key) != 8:
        raise _invalid("key", f"the key of a cursor of type {_type_name(cursor_type)} has 8 bytes, this one {len(key)}")
    number = int.from_bytes(key, "big") - _INT64_BIAS
    if cursor_type == scope_pb2.CURSOR_TYPE_INT64:
        value.int64_value = number
    else:
        value.timestamp_value.CopyFrom(_timestamp(number))


def _int64_key(number: int) -> bytes:
    # Adding 2^63 flips the sign bit, so that negative numbers sort below positive ones as unsigned bytes.
    return (number + _INT64_BIAS).to_bytes(8, "big")


def _microseconds(moment: Timestamp) -> int:
    if not 0 <= moment.nanos < 1_000_000_000:
        raise _invalid("timestamp_value.nanos", "must be from 0 to 999999999")
    if moment.nanos % 1000:
        raise _invalid("timestamp_value.nanos", "has digits below a microsecond; round it before")
    number = moment.seconds * 1_000_000 + moment.nanos // 1000
    return _within_years(number)


def _within_years(number: int) -> int:
    if not _FIRST_MICROSECOND <= number <= _LAST_MICROSECOND:
        raise _invalid("timestamp_value", "lies outside of the years 0001 to 9999")
    return number


def _timestamp(number: int) -> Timestamp:
    seconds, microseconds = divmod(_within_years(number), 1_000_000)
    return Timestamp(seconds=seconds, nanos=microseconds * 1000)


def _parse_microseconds(text: str) -> int:
    remedy = "write one such as 2024-05-01T12:00:00Z, with its zone and at most six digits of a second"
    if not _TIMESTAMP.fullmatch(text):
        raise _invalid("cursor", f"{text!r} is not a timestamp; {remedy}")
    try:
        return (datetime.fromisoformat(text.upper()) - _EPOCH) // _MICROSECOND
    except (ValueError, OverflowError) as error:
        raise _invalid("cursor", f"{text!r} is not a timestamp ({error}); {remedy}") from error


def _string_key(text: str, field: str) -> bytes:
    try:
        key = unicodedata.normalize("NFC", text).encode()
    except UnicodeEncodeError as error:
        raise _invalid(field, "is not Unicode text") from error
    if not 1 <= len(key) <= MAX_STRING_BYTES:
        raise _invalid(field, f"has {len(key)} bytes of UTF-8; 1 to {MAX_STRING_BYTES} are allowed")
    return key


def _key_string(key: bytes) -> str:
    try:
        return key.decode()
    except UnicodeDecodeError as error:
        raise _invalid("key", "is not UTF-8") from error


def _type_of(value: CursorValue) -> CursorType:
    field = value.WhichOneof("value")
    if field is None:
        raise _invalid("value", "a cursor has no value")
    return _TYPE_OF_FIELD[field]


def _type_name(cursor_type: CursorType) -> str:
    return scope_pb2.CursorType.Name(cursor_type).removeprefix("CURSOR_TYPE_").lower()


def _invalid(field: str, description: str) -> ScopeError:
    violation = Violation(field, description)
    return ScopeError(errors_pb2.ERROR_REASON_INVALID_REQUEST, f"{field}: {description}", violations=(violation,))


def _mismatch(message: str) -> ScopeError:
    return ScopeError(errors_pb2.ERROR_REASON_SCOPE_MISMATCH, message)
