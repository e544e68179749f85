"""Keys and texts of scopes: the published vectors, and properties of every value."""

import json
import unicodedata
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.json_format import ParseDict
from hypothesis import given
from hypothesis import strategies as st

from kernel import scopes
from kernel.scopes import CursorType, ScopeError, ScopeKey, ScopeKind
from traceapi.types.v1 import errors_pb2, scope_pb2
from traceapi.types.v1.scope_pb2 import CursorRange, CursorValue, Scope

VECTORS: dict[str, Any] = json.loads(
    (Path(__file__).resolve().parents[2] / "protos/testdata/scope_keys.json").read_text(encoding="utf-8")
)
INT64, TIMESTAMP, STRING = (
    scope_pb2.CURSOR_TYPE_INT64,
    scope_pb2.CURSOR_TYPE_TIMESTAMP,
    scope_pb2.CURSOR_TYPE_STRING,
)

integers = st.integers(-(2**63), 2**63 - 1).map(lambda number: CursorValue(int64_value=number))
texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=60).filter(
    lambda text: len(unicodedata.normalize("NFC", text).encode()) <= 255
)


def timestamp(moment: datetime) -> CursorValue:
    value = CursorValue()
    value.timestamp_value.FromDatetime(moment)
    return value


moments = st.datetimes(timezones=st.just(UTC))


def cursor(vector: dict[str, Any]) -> CursorValue:
    return ParseDict(vector["value"], CursorValue())


def cursor_type(vector: dict[str, Any]) -> CursorType:
    return scope_pb2.CursorType.Value(vector["cursor_type"])


@pytest.mark.parametrize("vector", VECTORS["cursors"], ids=lambda vector: ascii(vector["text"]))
def test_a_cursor_has_the_published_key_and_text(vector: dict[str, Any]) -> None:
    key = bytes.fromhex(vector["key"])
    assert scopes.cursor_key(cursor(vector)) == key
    assert scopes.cursor_value(cursor_type(vector), key) == cursor(vector)
    assert scopes.parse_cursor(vector["text"], cursor_type(vector)) == cursor(vector)


@pytest.mark.parametrize(
    "vector", [v for v in VECTORS["cursors"] if "." not in v["text"]], ids=lambda vector: ascii(vector["text"])
)
def test_a_cursor_is_written_as_the_vectors_have_it(vector: dict[str, Any]) -> None:
    assert scopes.format_cursor(cursor(vector)) == vector["text"]


def test_the_vectors_ascend() -> None:
    for kind in ("CURSOR_TYPE_INT64", "CURSOR_TYPE_TIMESTAMP", "CURSOR_TYPE_STRING"):
        keys = [bytes.fromhex(vector["key"]) for vector in VECTORS["cursors"] if vector["cursor_type"] == kind]
        assert len(keys) > 5
        assert keys == sorted(set(keys))


@pytest.mark.parametrize("vector", VECTORS["normalised"], ids=lambda vector: ascii(vector["normal"]))
def test_strings_that_are_equal_to_people_have_one_key(vector: dict[str, Any]) -> None:
    assert scopes.cursor_key(cursor(vector)).hex() == vector["key"]
    assert scopes.cursor_value(STRING, bytes.fromhex(vector["key"])).string_value == vector["normal"]
    partition = Scope(partition_key=vector["value"]["stringValue"])
    assert scopes.scope_key(partition).first.hex() == vector["key"]


@pytest.mark.parametrize("vector", VECTORS["scopes"], ids=lambda vector: vector["text"])
def test_a_scope_has_the_published_key_and_text(vector: dict[str, Any]) -> None:
    scope = ParseDict(vector["scope"], Scope())
    key = ScopeKey(
        ScopeKind(vector["kind"]), bytes.fromhex(vector["first"]), bytes.fromhex(vector["last"]), vector["revision"]
    )
    assert scopes.scope_key(scope) == key
    assert scopes.scope(cursor_type(vector), key) == scope
    assert scopes.cursor_type_of(scope) == cursor_type(vector)
    assert scopes.typed_scope_key(scope) == (key, cursor_type(vector))
    assert scopes.format_scope(scope) == vector["text"]


@pytest.mark.parametrize("vector", VECTORS["refused"], ids=lambda vector: vector["why"])
def test_a_scope_that_breaks_the_contract_is_refused(vector: dict[str, Any]) -> None:
    for read in (scopes.scope_key, scopes.typed_scope_key):
        with pytest.raises(ScopeError) as caught:
            read(ParseDict(vector["scope"], Scope()))
        assert caught.value.reason_name == vector["reason"]


@given(integers, integers)
def test_int64_keys_order_as_their_values(left: CursorValue, right: CursorValue) -> None:
    in_order = left.int64_value < right.int64_value
    assert (scopes.cursor_key(left) < scopes.cursor_key(right)) == in_order


@given(moments, moments)
def test_timestamp_keys_order_as_their_moments(left: datetime, right: datetime) -> None:
    assert (scopes.cursor_key(timestamp(left)) < scopes.cursor_key(timestamp(right))) == (left < right)


@given(integers)
def test_an_int64_survives_its_key_and_its_text(value: CursorValue) -> None:
    assert scopes.cursor_value(INT64, scopes.cursor_key(value)) == value
    assert scopes.parse_cursor(scopes.format_cursor(value), INT64) == value


@given(moments)
def test_a_timestamp_survives_its_key_and_its_text(moment: datetime) -> None:
    value = timestamp(moment)
    assert scopes.cursor_value(TIMESTAMP, scopes.cursor_key(value)) == value
    assert scopes.parse_cursor(scopes.format_cursor(value), TIMESTAMP) == value


@given(texts)
def test_a_string_survives_in_normal_form(text: str) -> None:
    key = scopes.cursor_key(CursorValue(string_value=text))
    assert scopes.cursor_value(STRING, key).string_value == unicodedata.normalize("NFC", text)


def test_a_range_may_be_one_cursor_wide() -> None:
    one = CursorValue(int64_value=7)
    key = scopes.scope_key(Scope(range=CursorRange(first=one, last=one)))
    assert (key.kind, key.first == key.last) == (ScopeKind.RANGE, True)


@pytest.mark.parametrize(
    ("text", "kind", "said"),
    [
        ("", INT64, "not an integer"),
        ("1.5", INT64, "not an integer"),
        ("0x10", INT64, "not an integer"),
        ("٣", INT64, "not an integer"),
        ("1__0", INT64, "not an integer"),
        ("9223372036854775808", INT64, "64 bits"),
        ("-9223372036854775809", INT64, "64 bits"),
        ("2024-05-01T12:00:00", TIMESTAMP, "with its zone"),
        ("2024-05-01", TIMESTAMP, "with its zone"),
        ("2024-05-01T12:00:00.1234567Z", TIMESTAMP, "six digits"),
        ("2024-02-30T12:00:00Z", TIMESTAMP, "not a timestamp"),
        ("0001-01-01T00:00:00+01:00", TIMESTAMP, "0001 to 9999"),
        ("", STRING, "1 to 255"),
        ("x" * 256, STRING, "1 to 255"),
        ("\ud800", STRING, "not Unicode"),
        ("1", scope_pb2.CURSOR_TYPE_UNSPECIFIED, "partition keys only"),
    ],
)
def test_text_that_is_no_cursor_is_refused_with_a_remedy(text: str, kind: CursorType, said: str) -> None:
    with pytest.raises(ScopeError, match=said):
        scopes.parse_cursor(text, kind)


@pytest.mark.parametrize(
    ("text", "value"),
    [("500_000", 500000), ("+7", 7), ("-0", 0)],
)
def test_an_integer_may_be_written_for_people(text: str, value: int) -> None:
    assert scopes.parse_cursor(text, INT64).int64_value == value


def test_a_timestamp_of_any_zone_is_one_in_utc() -> None:
    there = scopes.parse_cursor("2024-05-01T14:00:00+02:00", TIMESTAMP)
    assert scopes.format_cursor(there) == "2024-05-01T12:00:00Z"


@pytest.mark.parametrize("nanos", [-1, 1, 999, 1_000_000_000])
def test_a_timestamp_with_nanos_out_of_place_is_refused(nanos: int) -> None:
    value = CursorValue()
    value.timestamp_value.nanos = nanos
    with pytest.raises(ScopeError) as caught:
        scopes.cursor_key(value)
    assert caught.value.reason == errors_pb2.ERROR_REASON_INVALID_REQUEST


@pytest.mark.parametrize(("kind", "key"), [(INT64, b""), (INT64, bytes(9)), (TIMESTAMP, bytes(8)), (STRING, b"\xff")])
def test_bytes_that_are_no_key_are_refused(kind: CursorType, key: bytes) -> None:
    with pytest.raises(ScopeError):
        scopes.cursor_value(kind, key)
