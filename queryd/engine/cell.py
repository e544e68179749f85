"""A cell: the process of one query. queryd keeps some ready, gives each one text, and kills it to stop it.

It has no environment, no network, no credential, and sees the artifact store read-only (queryd/engine/sandbox.py).
Its life: ready; the text is held against the gate; the relations come; the answer is streamed; the process ends.
Nothing of a query survives in it for another one.
"""

import io
import os
import resource
import sys
from pathlib import Path
from typing import Any, BinaryIO

import duckdb
import pyarrow as pa

from queryd.engine import messages, session
from queryd.engine.messages import CellLimits, Failure, Job, Kind
from queryd.gate import GateError, check

# Frames of Python, for the walk over a parse tree: enough for an expression as deep as the parser takes.
_DEEPEST = 8_000


def main() -> None:
    limits = messages.unpack_limits(sys.argv[1])
    # Whatever code prints must not mix into the frames.
    requests = os.fdopen(os.dup(0), "rb")
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_RDWR), 0)
    os.dup2(2, 1)
    _limit(limits)
    sys.setrecursionlimit(_DEEPEST)
    connection = session.open_session(limits, Path.cwd())
    check(connection, "SELECT 1")  # loads the parser
    messages.write_frame(answers, Kind.READY, b"")
    try:
        _serve(connection, requests, answers)
    except BrokenPipeError:
        pass  # queryd has gone away
    finally:
        os._exit(0)  # nothing is worth a tidy end: all is in memory or in the private folder


def _limit(limits: CellLimits) -> None:
    """RLIMIT_DATA makes a failed allocation a clean error of the engine; RLIMIT_AS crashes it."""
    resource.setrlimit(resource.RLIMIT_DATA, (limits.memory_bytes, limits.memory_bytes))
    resource.setrlimit(resource.RLIMIT_FSIZE, (limits.scratch_bytes, limits.scratch_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _serve(connection: duckdb.DuckDBPyConnection, requests: BinaryIO, answers: BinaryIO) -> None:
    tables: list[pa.Table] = []
    while (frame := messages.read_frame(requests, messages.MAX_JOB_BYTES)) is not None:
        kind, payload = frame
        if kind is Kind.CHECK:
            _check(connection, payload.decode(), answers)
        elif kind is Kind.TABLE:
            tables.append(pa.ipc.open_stream(payload).read_all())
        else:
            _answer(connection, kind, messages.unpack_job(payload), tables, answers)
            return


def _check(connection: duckdb.DuckDBPyConnection, sql: str, answers: BinaryIO) -> None:
    try:
        names = [messages.Name(name.dataset_id, name.line, name.column) for name in check(connection, sql)]
    except GateError as error:
        failure = Failure(error.kind, error.message, error.place.line, error.place.column)
        messages.write_frame(answers, Kind.FAILED, messages.pack_failure(failure))
    except duckdb.Error as error:
        failure = session.failure_of(connection, Job(sql, (), 0), error)
        messages.write_frame(answers, Kind.FAILED, messages.pack_failure(failure))
    else:
        messages.write_frame(answers, Kind.NAMES, messages.pack_names(names))


def _answer(
    connection: duckdb.DuckDBPyConnection, kind: Kind, job: Job, tables: list[pa.Table], answers: BinaryIO
) -> None:
    try:
        session.prepare(connection, job, tables)
        if kind is Kind.EXPLAIN:
            messages.write_frame(answers, Kind.PLAN, session.plan(connection, job.sql).encode())
        elif _stream(connection, job, answers):
            messages.write_frame(answers, Kind.FINISHED, b"")
        else:
            failure = Failure("rows", f"the answer has more than {job.max_rows:,} rows")
            messages.write_frame(answers, Kind.FAILED, messages.pack_failure(failure))
    except BrokenPipeError:
        raise
    except (
        duckdb.Error,
        pa.ArrowException,
        OSError,
        MemoryError,
        ValueError,
        GateError,
        session.RelationError,
    ) as error:
        failure = session.failure_of(connection, job, error)
        messages.write_frame(answers, Kind.FAILED, messages.pack_failure(failure))


def _stream(connection: duckdb.DuckDBPyConnection, job: Job, answers: BinaryIO) -> bool:
    """Writes the answer as one Arrow stream. False where it has too many rows."""
    reader = session.batches(connection, job.sql)
    sink = _ArrowFrames(answers)
    with pa.ipc.new_stream(sink, reader.schema) as writer:
        sink.send()
        for batch in reader:
            if sink.row_count + batch.num_rows > job.max_rows:
                return False
            writer.write_batch(batch)
            sink.row_count += batch.num_rows
            sink.send()
    sink.send()
    return True


class _ArrowFrames(io.RawIOBase):
    """A file to Arrow, frames to queryd: sent after each batch, and before, when what was written fills a frame."""

    def __init__(self, answers: BinaryIO) -> None:
        super().__init__()
        self._answers = answers
        self._buffer = bytearray()
        self.row_count = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        for start in range(0, len(view), messages.MAX_ARROW_BYTES):
            part = view[start : start + messages.MAX_ARROW_BYTES]
            if len(self._buffer) + len(part) > messages.MAX_ARROW_BYTES:
                self.send()
            self._buffer += part
        return len(view)

    def send(self) -> None:
        if self._buffer:
            messages.write_frame(self._answers, Kind.ARROW, messages.pack_arrow(self.row_count, bytes(self._buffer)))
            self._buffer.clear()


if __name__ == "__main__":
    main()
