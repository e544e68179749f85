"""Cursors, scopes, range manifests and events as Python values, and their way to and from the contract's messages.

A cursor is an `int`, a `datetime` (aware, to the microsecond) or a `str` in normalisation form NFC.
"""

import unicodedata
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum, StrEnum
from typing import Self

from google.protobuf.timestamp_pb2 import Timestamp

from traceapi.types.v1 import event_pb2, scope_pb2
from tracesdk.errors import InvalidOutput, OperatorError

Cursor = int | datetime | str

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1


class CursorType(StrEnum):
    """The type of a dataset's cursors."""

    NONE = ""  # partition keys only
    INT64 = "int64"
    TIMESTAMP = "timestamp"
    STRING = "string"

    @classmethod
    def from_message(cls, message: scope_pb2.CursorType.ValueType) -> Self:
        return cls(_CURSOR_WORDS[message])

    def parse(self, value: object) -> Cursor:
        """The cursor that a setting states: a number or its digits, ISO 8601 (UTC where it names no zone), or text."""
        try:
            if self is CursorType.STRING and isinstance(value, str):
                return value
            if self is CursorType.INT64 and isinstance(value, int | str):
                return int(value)
            if self is CursorType.TIMESTAMP and isinstance(value, str):
                time = datetime.fromisoformat(value)
                return time if time.tzinfo else time.replace(tzinfo=UTC)
        except ValueError:
            pass
        raise OperatorError(f"{value!r} is no cursor of the type {self.value or 'none'}")


_CURSOR_WORDS = {
    scope_pb2.CURSOR_TYPE_UNSPECIFIED: "",
    scope_pb2.CURSOR_TYPE_INT64: "int64",
    scope_pb2.CURSOR_TYPE_TIMESTAMP: "timestamp",
    scope_pb2.CURSOR_TYPE_STRING: "string",
}


class ScopeKind(Enum):
    """What kind of extent a scope has."""

    CURSOR = "cursor"
    RANGE = "range"
    PARTITION = "partition"


@dataclass(frozen=True, slots=True)
class Scope:
    """What an event or an artifact is about. Make one with `at`, `between` or `partition`.

    `revision` is None for the revision of the task that emits, which is the only one it may use.
    """

    kind: ScopeKind
    first: Cursor | None = None
    last: Cursor | None = None
    partition_key: str | None = None
    revision: int | None = None

    @classmethod
    def at(cls, cursor: Cursor) -> Self:
        """One cursor value."""
        return cls(ScopeKind.CURSOR, cursor, cursor)

    @classmethod
    def between(cls, first: Cursor, last: Cursor) -> Self:
        """A closed range: both ends belong to it."""
        return cls(ScopeKind.RANGE, first, last)

    @classmethod
    def partition(cls, key: str) -> Self:
        """A partition key, without order."""
        return cls(ScopeKind.PARTITION, partition_key=key)

    @classmethod
    def from_message(cls, message: scope_pb2.Scope) -> Self:
        extent = message.WhichOneof("extent")
        if extent == "cursor":
            cursor = cursor_from_message(message.cursor)
            return cls(ScopeKind.CURSOR, cursor, cursor, None, message.revision)
        if extent == "range":
            first, last = cursor_from_message(message.range.first), cursor_from_message(message.range.last)
            return cls(ScopeKind.RANGE, first, last, None, message.revision)
        return cls(ScopeKind.PARTITION, None, None, message.partition_key, message.revision)

    def to_message(self, revision: int) -> scope_pb2.Scope:
        """The message; `revision` is taken where the scope has none of its own."""
        message = scope_pb2.Scope()
        self.fill(message, revision)
        return message

    def fill(self, message: scope_pb2.Scope, revision: int) -> None:
        """The same into a message that is there, and empty: a task may emit a million."""
        message.revision = revision if self.revision is None else self.revision
        if self.kind is ScopeKind.PARTITION:
            message.partition_key = self.partition_key or ""
            return
        if self.first is None or self.last is None:
            raise InvalidOutput("a scope of cursors needs its first and its last cursor")
        if self.kind is ScopeKind.CURSOR:
            _fill_cursor(message.cursor, self.first)
        else:
            _fill_cursor(message.range.first, self.first)
            _fill_cursor(message.range.last, self.last)

    def __str__(self) -> str:
        if self.kind is ScopeKind.PARTITION:
            return str(self.partition_key)
        return str(self.first) if self.kind is ScopeKind.CURSOR else f"{self.first}..{self.last}"


@dataclass(frozen=True, slots=True)
class RangeManifest:
    """Which units a range is made of. `members` are ascending: for integers maximal runs, for others one per unit."""

    first: Cursor
    last: Cursor
    unit_count: int
    members: tuple[tuple[Cursor, Cursor], ...]

    @classmethod
    def from_message(cls, message: scope_pb2.RangeManifest) -> Self:
        members = tuple((cursor_from_message(one.first), cursor_from_message(one.last)) for one in message.members)
        boundaries = message.boundaries
        first, last = cursor_from_message(boundaries.first), cursor_from_message(boundaries.last)
        return cls(first, last, message.unit_count, members)

    def to_message(self) -> scope_pb2.RangeManifest:
        return scope_pb2.RangeManifest(
            boundaries=range_to_message(self.first, self.last),
            unit_count=self.unit_count,
            members=[range_to_message(first, last) for first, last in self.members],
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        return cls.from_message(scope_pb2.RangeManifest.FromString(data))

    def to_bytes(self) -> bytes:
        """The same bytes for equal manifests: operators keep them as state."""
        return self.to_message().SerializeToString(deterministic=True)


@dataclass(frozen=True, slots=True)
class Event:
    """The event that caused a task: the dataset has something new at the scope."""

    event_id: str
    dataset: str
    scope: Scope
    manifest: RangeManifest | None
    event_time: datetime | None
    publication_number: int

    @classmethod
    def from_message(cls, message: event_pb2.Event) -> Self:
        return cls(
            message.event_id,
            message.dataset_id,
            Scope.from_message(message.scope),
            RangeManifest.from_message(message.manifest) if message.HasField("manifest") else None,
            time_from_message(message.event_time) if message.HasField("event_time") else None,
            message.publication_number,
        )


def cursor_from_message(message: scope_pb2.CursorValue) -> Cursor:
    kind = message.WhichOneof("value")
    if kind == "int64_value":
        return message.int64_value
    return time_from_message(message.timestamp_value) if kind == "timestamp_value" else message.string_value


def cursor_to_message(cursor: Cursor) -> scope_pb2.CursorValue:
    """The message; InvalidOutput for what is no cursor."""
    message = scope_pb2.CursorValue()
    _fill_cursor(message, cursor)
    return message


def _fill_cursor(message: scope_pb2.CursorValue, cursor: Cursor) -> None:
    if isinstance(cursor, int) and not isinstance(cursor, bool):
        if not INT64_MIN <= cursor <= INT64_MAX:
            raise InvalidOutput(f"cursor {cursor} does not fit in 64 bits")
        message.int64_value = cursor
    elif isinstance(cursor, datetime):
        fill_time(message.timestamp_value, cursor)
    elif not isinstance(cursor, str):
        raise InvalidOutput(f"{cursor!r} is no cursor: an int, a datetime or a str is wanted")
    elif not 1 <= len(cursor.encode()) <= 255 or not unicodedata.is_normalized("NFC", cursor):
        raise InvalidOutput(f"cursor {cursor!r} must have 1 to 255 bytes and be in normalisation form NFC")
    else:
        message.string_value = cursor


def range_to_message(first: Cursor, last: Cursor) -> scope_pb2.CursorRange:
    return scope_pb2.CursorRange(first=cursor_to_message(first), last=cursor_to_message(last))


def microseconds(time: datetime) -> int:
    """Microseconds since 1970-01-01T00:00:00Z."""
    if time.tzinfo is None:
        raise InvalidOutput(f"the time {time.isoformat()} has no time zone; make it with tzinfo=UTC")
    return (time - _EPOCH) // _MICROSECOND


def time_of(since_epoch: int) -> datetime:
    """The time so many microseconds after 1970-01-01T00:00:00Z."""
    return _EPOCH + timedelta(microseconds=since_epoch)


def time_from_message(message: Timestamp) -> datetime:
    return _EPOCH + timedelta(seconds=message.seconds, microseconds=message.nanos // 1000)


def fill_time(message: Timestamp, time: datetime) -> None:
    """Into a message that is there."""
    message.seconds, rest = divmod(microseconds(time), 1_000_000)
    message.nanos = rest * 1000
