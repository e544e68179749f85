"""What headers of a call say about its query, and what they cannot say."""

import base64

import pytest

from kernel.errors import TraceError
from kernel.pin_text import pin_text
from queryd.flight import call_options
from traceapi.query.v1.query_service_pb2 import QueryRequest
from traceapi.types.v1.dataset_pb2 import DatasetPin, Pin


def _request(*headers: tuple[str, str | bytes], pinned: bool = False) -> QueryRequest:
    request = QueryRequest(pin=Pin(pin_id="p")) if pinned else QueryRequest()
    call_options.apply(headers, request)
    return request


def _refusal(*headers: tuple[str, str]) -> str:
    with pytest.raises(TraceError) as caught:
        _request(*headers)
    assert caught.value.reason_name == "INVALID_REQUEST"
    assert [violation.field for violation in caught.value.violations] == [headers[-1][0]]
    return caught.value.message


def test_each_header_is_a_field_of_the_request() -> None:
    request = _request(("trace-as-of", "7"), ("trace-timeout", "1.5"), ("trace-max-rows", "10"))
    assert (request.deploy_number, request.timeout.ToMilliseconds(), request.max_rows) == (7, 1500, 10)
    pin = Pin(pin_id="p", deploy_number=3, datasets=[DatasetPin(dataset_id="eth.blocks")])
    assert _request(("trace-as-of", pin_text(pin))).pin == pin


def test_watermarks_are_numbers_or_what_a_person_writes() -> None:
    request = _request(("trace-min-watermarks", '{"eth.blocks": -5, "eth.hours": "2024-05-01T12:00:00Z"}'))
    blocks, hours = request.min_watermarks
    assert (blocks.dataset_id, blocks.cursor.int64_value) == ("eth.blocks", -5)
    assert (hours.dataset_id, hours.cursor.string_value) == ("eth.hours", "2024-05-01T12:00:00Z")


def test_a_request_with_its_pin_keeps_it() -> None:
    request = _request(("trace-as-of", "7"), ("trace-min-watermarks", '{"a": 1}'), ("trace-max-rows", "3"), pinned=True)
    assert (request.pin.pin_id, len(request.min_watermarks), request.max_rows) == ("p", 0, 3)


@pytest.mark.parametrize(
    "value",
    [
        *("", "5", "[1]", "{", '{"a": true}', '{"a": null}', '{"a": 1.5}', '{"a": {}}', f'{{"a": {2**63}}}'),
        *("[" * 100_000, "{" + ", ".join(f'"d{number}": 1' for number in range(101)) + "}"),
    ],
)
def test_watermarks_that_cannot_be_are_refused(value: str) -> None:
    assert "trace-min-watermarks is not a JSON object of datasets" in _refusal(("trace-min-watermarks", value))


def test_an_unknown_header_of_ours_is_refused_with_the_nearest_one() -> None:
    assert _refusal(("trace-asof", "7")) == "there is no header trace-asof: did you mean trace-as-of?"
    assert "known are trace-as-of, " in _refusal(("trace-colour", "7"))


def test_headers_of_others_say_nothing() -> None:
    others: list[tuple[str, str | bytes]] = [
        ("traceparent", "00-0-0-00"),
        ("tracestate", "x"),
        ("grpc-trace-bin", b"\0"),
        ("user-agent", "adbc"),
    ]
    assert _request(*others, ("trace-actor-name", "alice"), ("trace-x-bin", base64.b64encode(b"x"))) == QueryRequest()
