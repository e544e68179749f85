"""A cell: the process of one query. queryd keeps some ready, gives each one text, and kills it to stop it. It is
started from here, or forked of a process that has loaded all this (queryd/engine/zygote.py).

It has no environment but for its allocators, no network, no credential, and sees the artifact store read-only
(queryd/engine/sandbox.py).
Its life: ready; the text is held against the gate; the relations come, and it says what the answer will look like; the
answer is streamed; the process ends.
Nothing of a query survives in it for another one.
"""

import io
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import duckdb
import pyarrow as pa

from queryd.demands import Demands, passed_on
from queryd.engine import calls, complaints, messages, session, wall
from queryd.engine.answers import AnswerWriter
from queryd.engine.arrow_messages import MessageWriter, batch_rows
from queryd.engine.frames import MAX_JOB_BYTES, Kind, read_frame, write_frame
from queryd.engine.limiting import limit
from queryd.engine.messages import CellLimits, CheckedText, Failure, FailureKind, Job, Name, RangedFile, VirtualTexts
from queryd.engine.parameter_types import parameter_schema
from queryd.engine.parameters import Bound, bound, constants, unbound
from queryd.engine.ranges import RangeAsker
from queryd.engine.slots import SlotWriter
from queryd.gate import GateError, check, parsed

if TYPE_CHECKING:
    from queryd.engine.ranged_files import RangedFiles

# Frames of Python, for the walk over a parse tree: enough for an expression as deep as the parser takes.
_DEEPEST = 8_000
# What may go wrong with a text or its files. ParameterError is a ValueError.
_FAILURES = (
    *(duckdb.Error, pa.ArrowException, OSError, MemoryError, ValueError, GateError),
    *(complaints.RelationError, complaints.TooManyRowsError),
)


def main() -> None:
    limits = messages.unpack_limits(sys.argv[1])
    wall.die_with_parent()
    requests, answers = streams()
    slots = SlotWriter(int(sys.argv[2]))
    limit(limits)
    connection = prepared(limits, Path.cwd())
    calls.refuse_calls()
    serve(connection, AnswerWriter(answers, requests, slots), int(sys.argv[3]))


def prepared(limits: CellLimits, scratch: Path) -> duckdb.DuckDBPyConnection:
    """A session that has done before what the first text would have to wait for."""
    sys.setrecursionlimit(_DEEPEST)
    connection = session.open_session(limits, scratch)
    check(connection, "SELECT 1")  # loads the parser
    return connection


def streams() -> tuple[io.BufferedReader, io.BufferedWriter]:
    """The pipes from and to queryd. Whatever code prints from now on does not mix into the frames."""
    requests = os.fdopen(os.dup(0), "rb")
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_RDWR), 0)
    os.dup2(2, 1)
    return requests, answers


def serve(connection: duckdb.DuckDBPyConnection, writer: AnswerWriter, ranges: int) -> NoReturn:
    """One query; then the process ends. `ranges` is the descriptor at which it asks for ranges of files."""
    write_frame(writer.answers, Kind.READY, b"")
    cell = _Cell(connection, writer, RangeAsker(ranges))
    try:
        while (frame := read_frame(writer.requests, MAX_JOB_BYTES)) is not None and cell.answer(*frame):
            pass
    except BrokenPipeError:
        pass  # queryd has gone away
    except BaseException:  # noqa: BLE001 - its last words, whatever it is
        sys.excepthook(*sys.exc_info())
        sys.stderr.flush()
        os._exit(1)
    os._exit(0)  # nothing is worth a tidy end: all is in memory or in the private folder


class _Cell:
    """What the process keeps between two frames. One text after the other may be checked; one is described and run."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, writer: AnswerWriter, asker: RangeAsker) -> None:
        self._connection = connection
        self._writer = writer
        self._asker = asker
        self._ranged: RangedFiles | None = None
        self._tables: list[pa.Table] = []
        self._parameters: tuple[str, ...] = ()
        self._given: pa.Table | None = None
        self._job: Job | None = None
        self._values: Bound = []
        self._written: set[session.Parts] | None = None
        self._answer: duckdb.DuckDBPyRelation | None = None
        self._is_lost = False
        self._schema: pa.Schema | None = None

    def answer(self, kind: Kind, payload: bytes) -> bool:
        """Whether there is more to ask. Where it lacks what it was to be given, what queryd asks before it has heard of
        that is for nothing."""
        if self._is_lost:
            return True
        try:
            return self._answered(kind, payload)
        except MemoryError:
            self._is_lost = True
            self._fail(complaints.MEMORY)
            return True

    def _answered(self, kind: Kind, payload: bytes) -> bool:
        if kind is Kind.CHECK:
            self._check(payload.decode())
            return True
        if kind is Kind.DEMAND:
            self._say(Kind.DEMANDED, messages.pack_demands(self._demands(messages.unpack_virtual(payload))))
            return True
        if kind is Kind.PARAMETERS:
            self._take_parameters(payload)
            return True
        if kind is Kind.FILES:
            self._ranged = self._registered(messages.unpack_files(payload))
            return True
        if kind is Kind.TABLE:
            self._tables.append(pa.ipc.open_stream(payload).read_all())
            return True
        if kind is Kind.TABLE_ROWS:
            rows = pa.ipc.open_stream(payload).read_all()
            self._tables[-1] = pa.concat_tables([self._tables[-1], rows])
            return True
        if kind is Kind.DESCRIBE:
            self._job = messages.unpack_job(payload)
            return self._did(self._describe, self._job)
        if kind is Kind.TYPE and self._job is not None:
            return self._did(self._tell_types, self._job)
        if self._job is not None:
            self._did(self._run if kind is Kind.RUN else self._plan, self._job)
        return False

    def _did(self, act: Callable[[Job], None], job: Job) -> bool:
        """Whether it could be done; where it could not, queryd is told why."""
        try:
            act(job)
        except BrokenPipeError:
            raise
        except _FAILURES as error:
            without_memory = self._ranged is not None and self._ranged.memory_failed
            failure = MemoryError() if without_memory else error
            self._fail(complaints.failure_of(self._connection, job, failure))
            return False
        return True

    def _registered(self, files: list[RangedFile]) -> "RangedFiles":
        # Loading it takes a tenth of a second, where it was not loaded before the fork.
        from queryd.engine.ranged_files import RangedFiles

        ranged = RangedFiles(files, self._asker)
        self._connection.register_filesystem(ranged)
        return ranged

    def _take_parameters(self, payload: bytes) -> None:
        try:
            self._given = pa.ipc.open_stream(payload).read_all()
        except MemoryError:
            raise
        except (pa.ArrowException, OSError, ValueError) as error:
            self._is_lost = True
            message = f"the values of parameters are no Arrow IPC stream: {error}"
            self._fail(Failure(FailureKind.PARAMETERS, message))

    def _check(self, sql: str) -> None:
        try:
            checked = check(self._connection, sql, {} if self._given is None else constants(self._given))
        except GateError as error:
            self._fail(Failure(FailureKind(error.kind), error.message, error.place.line, error.place.column))
        except duckdb.Error as error:
            self._fail(complaints.failure_of(self._connection, Job(sql, (), 0), error))
        else:
            names = tuple(
                Name(name.dataset_id, name.line, name.column, tuple(checked.mentions[name.parts]))
                for name in checked.names
            )
            self._parameters = tuple(checked.parameters)
            self._written = {name.parts for name in checked.names}
            self._say(Kind.CHECKED, messages.pack_checked(CheckedText(names, self._parameters)))

    def _demands(self, virtual: VirtualTexts) -> Demands:
        """Nothing where a virtual dataset's text is beyond this: then every row may count."""
        try:
            statements = {dataset_id: parsed(self._connection, sql) for dataset_id, sql in virtual.sql.items()}
            return passed_on(virtual.named, statements, virtual.known, virtual.columns)
        except (GateError, duckdb.Error, RecursionError, MemoryError, KeyError, TypeError, ValueError, AttributeError):
            return {}

    def _describe(self, job: Job) -> None:
        session.prepare(self._connection, job, self._tables, self._written)
        if self._given is None:
            self._values = unbound(self._parameters)
        else:
            self._values = bound(self._connection, self._parameters, self._given)
        self._answer = session.answer(self._connection, job.sql, self._values)
        self._schema = session.schema(self._answer)
        self._say(Kind.SCHEMA, self._schema.serialize().to_pybytes())

    def _tell_types(self, job: Job) -> None:
        types = parameter_schema(self._connection, job.sql, self._parameters)
        self._say(Kind.TYPED, types.serialize().to_pybytes())

    def _plan(self, job: Job) -> None:
        self._say(Kind.PLAN, _unranged(session.plan(self._connection, job.sql, self._values)).encode())

    def _run(self, job: Job) -> None:
        if self._given is None:
            bound(self._connection, self._parameters, None)  # it was described with nulls for them
        assert self._answer is not None  # noqa: S101 - it was described
        assert self._schema is not None  # noqa: S101 - with it
        reader = session.batches(self._answer, batch_rows(self._schema))
        writer = MessageWriter(reader.schema)
        row_count = 0
        for batch in reader:
            row_count += batch.num_rows
            if row_count > job.max_rows:
                raise complaints.TooManyRowsError(job.max_rows)
            for message in writer.messages(batch):
                self._writer.write(row_count, message)
        self._say(Kind.FINISHED, b"")

    def _fail(self, failure: Failure) -> None:
        failure = replace(failure, message=_unranged(failure.message))
        self._say(Kind.FAILED, messages.pack_failure(failure))

    def _say(self, kind: Kind, payload: bytes) -> None:
        write_frame(self._writer.answers, kind, payload)


def _unranged(text: str) -> str:
    """Files are called by their keys."""
    return text.replace(f"{messages.RANGED}://", "")


if __name__ == "__main__":
    main()
