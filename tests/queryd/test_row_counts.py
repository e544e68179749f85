"""What a cell says of the rows that it gave is believed only where it can be so: it goes on record."""

import io
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
import pytest

from kernel.errors import TraceError
from kernel.ids import new_id
from queryd.aftermath import Aftermath, Remains
from queryd.callers import Caller
from queryd.engine import messages
from queryd.engine.answers import Answered, read_answer, write_message
from queryd.engine.arrow_messages import Envelope
from queryd.engine.frames import Kind, read_frame, write_frame
from queryd.engine.messages import CheckedText
from queryd.envelopes import of_query_response
from queryd.query_parts import Finished, QueryText
from tests.queryd.runners import runner_of
from traceapi.control.v1 import query_record_pb2 as record_pb

_MOST = 100


class LyingCell:
    """Answers a text of no datasets, with what it pleases for the rows of each of its messages."""

    def __init__(self, *row_counts: int) -> None:
        frames = io.BytesIO()
        write_frame(frames, Kind.CHECKED, messages.pack_checked(CheckedText((), ())))
        write_frame(frames, Kind.SCHEMA, pa.schema([]).serialize().to_pybytes())
        for row_count in row_counts:
            write_message(frames, row_count, memoryview(pa.schema([]).serialize()))
        write_frame(frames, Kind.FINISHED, b"")
        self._frames = io.BytesIO(frames.getvalue())
        self.store = self.files = Path("/")

    def place(self, key: str) -> str:
        return f"{self.store}{key}"

    def send(self, kind: Kind, payload: bytes) -> None: ...

    def receive(self) -> tuple[Kind, bytes]:
        frame = read_frame(self._frames, 1 << 20)
        assert frame is not None
        return frame

    def receive_answer(self, envelope: Envelope) -> Answered:
        answered = read_answer(self._frames, envelope, cast("Any", None))
        assert answered is not None
        return answered

    def kill(self) -> None: ...

    def close(self) -> None: ...


class OneCell:
    """A pool of one cell."""

    def __init__(self, cell: LyingCell) -> None:
        self._cell = cell

    def take(self, seconds: float, check: object) -> LyingCell:
        return self._cell


def _asked(*row_counts: int) -> tuple[list[str], record_pb.QueryRecord]:
    """How the call ended, and the record."""
    aftermath, told = Aftermath(lambda pin_id: None), list[record_pb.QueryRecord]()
    runner = runner_of(OneCell(LyingCell(*row_counts)), aftermath, record=told.append, max_rows=_MOST)
    text = QueryText("select 1", new_id(), Caller("user:alice", record_pb.QUERY_CALL_QUERY), timeout=30.0)
    try:
        parts = list(runner.run(text, lambda query: lambda: None, of_query_response))
        ends = [str(part.row_count) for part in parts if isinstance(part, Finished)]
    except TraceError as error:
        ends = [error.reason_name]
    finally:
        aftermath.close()
    return ends, told[0]


def test_the_end_of_a_query_is_told_beside_all_else_that_is_left() -> None:
    released, told, go_on = threading.Event(), threading.Event(), threading.Event()

    def tell() -> None:
        told.set()
        assert go_on.wait(20)
        raise ValueError("a defect")

    aftermath = Aftermath(lambda pin_id: released.set())
    aftermath.take(Remains(None, ExitStack(), "pin", tell))  # returns, though nothing is told yet
    assert told.wait(20)
    assert released.wait(20)
    go_on.set()
    aftermath.close()


def test_rows_that_can_be_so_are_on_record() -> None:
    ends, record = _asked(0, 7, 7, _MOST)
    assert (ends, record.row_count, record.outcome) == ([str(_MOST)], _MOST, record_pb.QUERY_OUTCOME_SUCCEEDED)


@pytest.mark.parametrize("last", [_MOST + 1, 1 << 63, (1 << 64) - 1, 6, 0])
def test_rows_that_become_fewer_or_are_more_than_a_cell_gives_end_the_query(last: int) -> None:
    ends, record = _asked(7, last)
    assert (ends, record.row_count, record.outcome) == (["INTERNAL"], 7, record_pb.QUERY_OUTCOME_FAILED)
