"""The one error and its three forms; the table is the contract's."""

import grpc
import pytest
from google.rpc import code_pb2, error_details_pb2, status_pb2

from kernel.errors import (
    TraceError,
    Violation,
    error_table,
    from_rpc_error,
    item_error,
    to_item_error,
    to_status,
)
from traceapi.types.v1 import errors_pb2


def failed(
    code: grpc.StatusCode, details: str = "", status: status_pb2.Status | bytes | None = None
) -> grpc.aio.AioRpcError:
    """A failed call, as a client holds it."""
    content = status.SerializeToString() if isinstance(status, status_pb2.Status) else status
    trailers = [("grpc-status-details-bin", content)] if content is not None else []
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(*trailers), details)


def test_the_table_has_a_row_for_every_reason_but_the_zero_value() -> None:
    numbers = [value.number for value in errors_pb2.ErrorReason.DESCRIPTOR.values if value.number != 0]
    assert [row.reason for row in error_table()] == numbers


@pytest.mark.parametrize("row", error_table(), ids=lambda row: row.name)
def test_a_row_says_what_happened_and_what_to_do(row: object) -> None:
    found = next(candidate for candidate in error_table() if candidate is row)
    assert found.code is not grpc.StatusCode.OK
    assert found.meaning.endswith(".")
    assert found.remedy.endswith(".")
    assert errors_pb2.ErrorReason.Name(errors_pb2.ErrorReason.ValueType(found.reason)) == f"ERROR_REASON_{found.name}"


def test_codes_are_those_of_grpc_by_number() -> None:
    row = next(row for row in error_table() if row.name == "DATA_LOSS" or row.name == "ARTIFACT_LOST")
    assert (row.code, row.code.value[0]) == (grpc.StatusCode.DATA_LOSS, code_pb2.DATA_LOSS)


def test_an_error_knows_its_code_and_name() -> None:
    error = TraceError(errors_pb2.ERROR_REASON_STALE_LEASE, "gone")
    assert (error.code, error.reason_name, str(error)) == (
        grpc.StatusCode.FAILED_PRECONDITION,
        "STALE_LEASE",
        "gone",
    )


@pytest.mark.parametrize("row", error_table(), ids=lambda row: row.name)
def test_every_reason_survives_the_wire(row: object) -> None:
    found = next(candidate for candidate in error_table() if candidate is row)
    sent = TraceError(
        found.reason,
        "what – exactly",
        metadata={"task_id": "t1"},
        violations=[Violation("a.b[1]", "too small"), Violation("", "as a whole")],
        retry_after=0.25,
    )
    status = to_status(sent)
    received = from_rpc_error(failed(found.code, status.message, status))
    assert (received.reason, received.message, received.metadata, received.violations, received.retry_after) == (
        sent.reason,
        sent.message,
        sent.metadata,
        sent.violations,
        sent.retry_after,
    )


def test_a_status_carries_the_standard_details() -> None:
    status = to_status(TraceError(errors_pb2.ERROR_REASON_OVERLOADED, "full", retry_after=2))
    assert status.code == code_pb2.RESOURCE_EXHAUSTED
    info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    assert status.details[0].Unpack(info)
    assert status.details[1].Unpack(retry)
    assert (info.domain, info.reason, retry.retry_delay.seconds) == ("trace", "OVERLOADED", 2)
    assert len(status.details) == 2


@pytest.mark.parametrize(
    ("code", "details", "reason"),
    [
        (grpc.StatusCode.UNAVAILABLE, "connection refused", "UNAVAILABLE"),
        (grpc.StatusCode.CANCELLED, "", "UNAVAILABLE"),
        (grpc.StatusCode.DEADLINE_EXCEEDED, "", "DEADLINE_EXCEEDED"),
        (grpc.StatusCode.UNAUTHENTICATED, "", "UNAUTHENTICATED"),
        (grpc.StatusCode.PERMISSION_DENIED, "", "PERMISSION_DENIED"),
        (grpc.StatusCode.UNIMPLEMENTED, "", "NOT_IMPLEMENTED"),
        (grpc.StatusCode.INVALID_ARGUMENT, "", "INVALID_REQUEST"),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "SERVER: Received message larger than max (9 vs. 4)", "MESSAGE_TOO_LARGE"),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "Concurrent RPC limit exceeded!", "OVERLOADED"),
        (grpc.StatusCode.UNKNOWN, "", "INTERNAL"),
        (grpc.StatusCode.INTERNAL, "", "INTERNAL"),
        (grpc.StatusCode.NOT_FOUND, "", "INTERNAL"),
    ],
)
def test_a_status_without_details_gets_the_nearest_reason(code: grpc.StatusCode, details: str, reason: str) -> None:
    error = from_rpc_error(failed(code, details))
    assert (error.reason_name, error.metadata["grpc_code"]) == (reason, code.name)
    assert str(error)


@pytest.mark.parametrize("change", ["domain", "reason", "bytes", "empty"])
def test_details_of_others_are_not_taken_for_ours(change: str) -> None:
    status = to_status(TraceError(errors_pb2.ERROR_REASON_TASK_TAKEN, "taken"))
    info = error_details_pb2.ErrorInfo(
        reason="NO_SUCH_REASON" if change == "reason" else "TASK_TAKEN",
        domain="other.example" if change == "domain" else "trace",
    )
    del status.details[:]
    if change in ("domain", "reason"):
        status.details.add().Pack(info)
    content = b"\xff\xff" if change == "bytes" else status.SerializeToString()
    assert from_rpc_error(failed(grpc.StatusCode.UNAVAILABLE, "x", content)).reason_name == "UNAVAILABLE"


def test_violations_beyond_what_a_trailer_carries_are_counted() -> None:
    violations = [Violation(f"items[{number}]", "x" * 100) for number in range(5000)]
    status = to_status(TraceError(errors_pb2.ERROR_REASON_INVALID_DOCUMENT, "many", violations=violations))
    assert status.ByteSize() < 256 * 1024
    received = from_rpc_error(failed(grpc.StatusCode.INVALID_ARGUMENT, "many", status)).violations
    assert received[0] == violations[0]
    assert received[-1].description.startswith(f"and {5000 - (len(received) - 1)} more")


def test_text_that_cannot_travel_is_made_fit() -> None:
    status = to_status(TraceError(errors_pb2.ERROR_REASON_INTERNAL, "\ud800" + "x" * 10_000, metadata={"k": "\udfff"}))
    assert status.message.startswith("?xxx")
    assert len(status.message) == 4096


def test_an_item_error_has_reason_message_and_metadata() -> None:
    error = item_error(errors_pb2.ERROR_REASON_SCHEMA_DRIFT, "drift", dataset_id="eth.blocks")
    assert (error.reason, error.message, dict(error.metadata)) == (
        errors_pb2.ERROR_REASON_SCHEMA_DRIFT,
        "drift",
        {"dataset_id": "eth.blocks"},
    )


def test_an_error_as_an_item_keeps_its_violations() -> None:
    error = TraceError(
        errors_pb2.ERROR_REASON_INVALID_REQUEST, "wrong", metadata={"a": "b"}, violations=[Violation("f", "bad")]
    )
    item = to_item_error(error)
    assert (item.reason, item.message, dict(item.metadata)) == (error.reason, "wrong\nf: bad", {"a": "b"})
