"""What may go wrong in a session, and what it means: the engine's own words, sorted by who is to do something about it.

The engine has one title for many causes. It calls a full disk a want of memory, and a file of its own that grew too
large damage to a file; neither is told as such.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path

import duckdb

from kernel.dataset_sql import line_and_column
from queryd.engine.messages import Failure, FailureKind, Job
from queryd.engine.parameters import ParameterError

SPILLED = "spill"
"""Into which folder of a cell's own the engine spills."""

_ENGINE_ERROR = re.compile(r"^(?P<title>[A-Z][A-Za-z ]*) Error: (?P<text>.*)$", re.DOTALL)
_PLAN = "EXPLAIN "
_WANT_OF_MEMORY = "Out of Memory"
# What the engine calls its trouble with a file, often without naming it.
_DAMAGE = ("IO", "Invalid", "Serialization")
# What it calls a state that it should never be in.
_DEFECT = ("INTERNAL", "FATAL")
_MOST_SPILLED = "max_temp_directory_size"
_END_OF_LINE = "\n"
_DISK_FULL = "No space left on device"

MEMORY = Failure(FailureKind.MEMORY, "the query needs more memory than it may have (query_memory_bytes)")
_SCRATCH = Failure(FailureKind.SCRATCH, "the query spills more to disk than it may (query_scratch_bytes)")
_FULL = Failure(FailureKind.SCRATCH, "the disk on which queries spill is full (query_work_dir)")


class RelationError(Exception):
    """A dataset cannot be made readable; the message is for people."""


class TooManyRowsError(Exception):
    """The answer has more rows than it may have."""

    def __init__(self, max_rows: int) -> None:
        super().__init__(f"the answer has more than {max_rows:,} rows")


def failure_of(connection: duckdb.DuckDBPyConnection, job: Job, error: Exception) -> Failure:
    """What an exception of the engine, or of Arrow on its behalf, means."""
    if isinstance(error, TooManyRowsError):
        return Failure(FailureKind.ROWS, str(error))
    if isinstance(error, ParameterError):
        return Failure(FailureKind.PARAMETERS, str(error))
    cause = error.__cause__ if isinstance(error, RelationError) and isinstance(error.__cause__, Exception) else error
    title, message, offset = words_of(cause)
    if (limited := _limit(cause, title, message)) is not None:
        return limited
    kind = _kind(title)
    if isinstance(error, RelationError):
        return Failure(kind, str(error))
    if kind is FailureKind.BROKEN:
        return Failure(kind, f"{title} error: {message.partition(_END_OF_LINE)[0]}")
    if offset is None:
        offset = _planned_offset(connection, job.sql)
    elif any(relation.sql for relation in job.relations):
        offset = None  # it may be a place in a virtual dataset's text
    place = (0, 0) if offset is None else line_and_column(job.sql, offset)
    return Failure(kind, f"{title} error: {message}" if title else message, *place)


def words_of(error: Exception) -> tuple[str, str, int | None]:
    """Title, message and byte offset of an engine's error; it is JSON where the engine could say more."""
    match = _ENGINE_ERROR.match(str(error))
    title, text = (match["title"], match["text"]) if match else ("", str(error))
    try:
        fields: Mapping[str, str] = json.loads(text)
        title, message = str(fields["exception_type"]), str(fields["exception_message"])
    except (ValueError, KeyError, TypeError):
        return title, text, None
    position = fields.get("position")
    return title, message, int(position) if position is not None and position.isdecimal() else None


def _limit(error: Exception, title: str, message: str) -> Failure | None:
    """The limit that it met, if it is one of the process."""
    if title == _WANT_OF_MEMORY and _MOST_SPILLED in message:
        return _SCRATCH
    if title == _WANT_OF_MEMORY or isinstance(error, MemoryError):
        return MEMORY
    if title == "IO" and str(Path.cwd() / SPILLED) in message:
        return _FULL if _DISK_FULL in message else _SCRATCH
    return None


def _kind(title: str) -> FailureKind:
    if title in _DEFECT:
        return FailureKind.BROKEN
    return FailureKind.FILES if title in _DAMAGE else FailureKind.FAILED


def _planned_offset(connection: duckdb.DuckDBPyConnection, sql: str) -> int | None:
    """Where the text is wrong. Errors of a relation come without a place, those of EXPLAIN with one."""
    try:
        connection.execute(_PLAN + sql)
    except duckdb.Error as error:
        offset = words_of(error)[2]
        return None if offset is None else offset - len(_PLAN)
    return None
