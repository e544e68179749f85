"""What a caller asks, and what is answered: the values between the calls that are served and the life of a query."""

from collections.abc import Generator
from dataclasses import dataclass, field

from queryd.callers import Caller
from queryd.resolve import AsOf, ResolvedDataset
from traceapi.types.v1.dataset_pb2 import Pin
from traceapi.types.v1.event_pb2 import Watermark


@dataclass(frozen=True, slots=True)
class QueryText:
    """What a caller asks. `timeout` in seconds; `max_rows` and `max_bytes` 0 for the server's limits.

    `parameters` is an Arrow IPC stream of one row, the values of the text's parameters; empty where it has none.
    """

    sql: str
    query_id: str
    caller: Caller
    timeout: float
    max_rows: int = 0
    max_bytes: int = 0
    as_of: AsOf = field(default_factory=AsOf)
    min_watermarks: tuple[Watermark, ...] = ()
    parameters: bytes = b""


@dataclass(frozen=True, slots=True)
class AnswerLimits:
    """What an answer may have: rows, and bytes of Arrow."""

    rows: int
    bytes: int

    def of(self, text: QueryText) -> "AnswerLimits":
        """Of one text: what its caller says, and no more than these."""
        return AnswerLimits(min(text.max_rows or self.rows, self.rows), min(text.max_bytes or self.bytes, self.bytes))


@dataclass(frozen=True, slots=True)
class Started:
    """What is read, and what the answer will look like. The pin is None where the text names no dataset."""

    pin: Pin | None
    watermarks: tuple[Watermark, ...]
    file_count: int
    file_bytes: int
    schema: bytes
    """An IPC message."""


@dataclass(frozen=True, slots=True)
class ArrowMessage:
    """One IPC message of the answer, in the envelope that was asked for."""

    data: bytes


@dataclass(frozen=True, slots=True)
class ArrowPart:
    """A part, as it is, of an IPC message that is too large for one piece; the last one says so."""

    data: bytes
    last: bool


@dataclass(frozen=True, slots=True)
class Finished:
    """The figures at the end; `elapsed` in seconds."""

    row_count: int
    arrow_bytes: int
    elapsed: float


Parts = Generator[Started | ArrowMessage | ArrowPart | Finished, None, None]


@dataclass(frozen=True, slots=True)
class Explained:
    """What a query would read, and the engine's plan."""

    datasets: tuple[ResolvedDataset, ...]
    plan: str


@dataclass(frozen=True, slots=True)
class Description:
    """A text before it is run: the answer's schema, and that of the values of its parameters, empty where it has none;
    both as IPC messages."""

    schema: bytes
    parameters: bytes
