"""Of what a cell wrote before it ended, a log has no more than the class of an exception."""

import io
import traceback
from pathlib import Path

import pytest
import structlog

from kernel.errors import TraceError
from kernel.ids import new_id
from queryd.aftermath import Aftermath
from queryd.callers import Caller
from queryd.engine.frames import Kind
from queryd.engine.process import CellEndedError
from queryd.envelopes import of_query_response
from queryd.failures import raised
from queryd.query_parts import QueryText
from tests.queryd.runners import runner_of
from traceapi.control.v1 import query_record_pb2 as record_pb


def _traceback() -> str:
    words = io.StringIO()
    try:
        try:
            raise MemoryError("where name = 'secret'")
        except MemoryError as error:
            raise ValueError("a secret\nsecret: of two lines") from error
    except ValueError:
        traceback.print_exc(file=words)
    return words.getvalue()


@pytest.mark.parametrize(
    ("stderr", "name"),
    [
        (_traceback(), "MemoryError"),
        ('Traceback (most recent call last):\n  File "x", line 1\nKeyboardInterrupt\n', "KeyboardInterrupt"),
        (
            'Traceback (most recent call last):\n  File "x"\n    duck\nduckdb.InternalException: secret',
            "duckdb.InternalException",
        ),
        ("secret", ""),
        ("secretError: secret", ""),
        ('Traceback (most recent call last):\n  File "x", line 1\nsecret: secret', ""),
        ("", ""),
    ],
)
def test_the_class_of_the_first_exception_is_found(stderr: str, name: str) -> None:
    assert raised(stderr) == name


class DyingCell:
    """Ends as it is asked, with last words."""

    store = files = Path("/")

    def send(self, kind: Kind, payload: bytes) -> None: ...

    def receive(self) -> tuple[Kind, bytes]:
        raise CellEndedError(11, _traceback())

    def kill(self) -> None: ...

    def close(self) -> None: ...


class OneCell:
    """A pool of one."""

    def take(self, seconds: float, check: object) -> DyingCell:
        return DyingCell()


def test_a_log_quotes_nothing_of_what_a_cell_said() -> None:
    aftermath = Aftermath(lambda pin_id: None)
    runner = runner_of(OneCell(), aftermath)
    text = QueryText("select 1", new_id(), Caller("user:alice", record_pb.QUERY_CALL_QUERY), timeout=30.0)
    with structlog.testing.capture_logs() as lines, pytest.raises(TraceError):
        list(runner.run(text, lambda query: lambda: None, of_query_response))
    aftermath.close()
    (line,) = [line for line in lines if line["event"] == "a cell ended without an answer"]
    assert (line["signal"], line["raised"]) == (11, "MemoryError")
    assert "secret" not in str(lines)
