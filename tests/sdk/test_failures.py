"""From exceptions to failures: classes, one line, and a traceback of the operator's own frames within the limits."""

import pytest

from traceapi.types.v1.errors_pb2 import ErrorReason
from traceapi.types.v1.task_pb2 import ErrorClass
from tracesdk import InvalidOutput, OperatorError, SchemaMismatch, TransientError, WrapperGone, WrapperRefused
from tracesdk.failures import failure_of
from tracesdk.text import clip, clip_middle


@pytest.mark.parametrize(
    ("error", "error_class"),
    [
        (ValueError("x"), ErrorClass.ERROR_CLASS_USER),
        (SystemExit(1), ErrorClass.ERROR_CLASS_USER),
        (OperatorError("x"), ErrorClass.ERROR_CLASS_USER),
        (InvalidOutput("x"), ErrorClass.ERROR_CLASS_INVALID_OUTPUT),
        (SchemaMismatch("d", "c", "string", "int64"), ErrorClass.ERROR_CLASS_INVALID_OUTPUT),
        (MemoryError(), ErrorClass.ERROR_CLASS_OUT_OF_MEMORY),
        (TransientError("x"), ErrorClass.ERROR_CLASS_TRANSIENT),
        (WrapperGone("x"), ErrorClass.ERROR_CLASS_TRANSIENT),
        (WrapperRefused(ErrorReason.ERROR_REASON_SCHEMA_DRIFT, "x"), ErrorClass.ERROR_CLASS_INVALID_OUTPUT),
        (WrapperRefused(ErrorReason.ERROR_REASON_DATASET_NOT_READ, "x"), ErrorClass.ERROR_CLASS_USER),
        (WrapperRefused(ErrorReason.ERROR_REASON_ARTIFACT_LOST, "x"), ErrorClass.ERROR_CLASS_TRANSIENT),
    ],
)
def test_each_error_has_its_class(error: BaseException, error_class: int) -> None:
    assert failure_of(error).error_class == error_class


def test_a_failure_fits_the_contract_whatever_the_message() -> None:
    try:
        raise ValueError("é" * 100_000 + "\udc80 the end")
    except ValueError as error:
        failure = failure_of(error)
    assert len(failure.message.encode()) <= 4096
    assert failure.message.startswith("ValueError: éé")
    assert len(failure.traceback.encode()) <= 65_536
    assert failure.traceback.startswith("Traceback")
    assert failure.traceback.rstrip().endswith("\\udc80 the end")


def test_causes_are_shown_and_one_that_cannot_be_shown_does_no_harm() -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    try:
        try:
            raise KeyError("inner")
        except KeyError as inner:
            raise Mute from inner
    except Mute as error:
        failure = failure_of(error)
    assert "KeyError: 'inner'" in failure.traceback
    assert "Mute" in failure.message


def test_text_is_cut_at_whole_characters() -> None:
    assert clip("éé", 4) == "éé"
    assert clip("ééé", 5) == "é..."
    middle = clip_middle("a" * 500 + "b" * 500, 400)
    assert len(middle) <= 400
    assert (middle[0], middle[-1]) == ("a", "b")
    assert "left out" in middle
