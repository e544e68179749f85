"""What queryd and a cell say to each other, in the frames of queryd/engine/frames.py.

Both sides are this file. It needs the standard library only, because a cell loads it before it is asked anything. A
cell is not trusted once it has run a text: queryd takes from what it says nothing but data.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from enum import Enum
from typing import Any

from queryd.demands import Demands
from queryd.engine.frames import ProtocolError
from queryd.set_operations import Columns
from queryd.terms import Constant, Term, Terms

RANGED = "trace"
"""The protocol in the path, `trace://<key>`, of a file that a cell asks for by ranges."""


@dataclass(frozen=True, slots=True)
class Name:
    """A dataset's name as the text writes it, at its first mention; of each mention, what rows have to meet."""

    dataset_id: str
    line: int
    column: int
    mentions: tuple[Terms, ...] = ()


@dataclass(frozen=True, slots=True)
class CheckedText:
    """What a text that passed the gate asks for: datasets, and values of its parameters ("1", "2" or names)."""

    names: tuple[Name, ...]
    parameters: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class VirtualTexts:
    """The virtual datasets behind a text: `sql` of each by its id; `named` is what the text itself demands, `known` has
    the ids of all datasets by their names, folded, and `columns` those of stored ones by id."""

    named: Demands
    sql: Mapping[str, str]
    known: Mapping[str, str]
    columns: Mapping[str, Columns]


@dataclass(frozen=True, slots=True)
class RangedFile:
    """A file that a cell asks for by ranges; it says its index in the list that it was given."""

    key: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Relation:
    """One dataset as the engine sees it: views under `names`, the dataset's id first, of `paths`, `table` or `sql`, or,
    without one of these, of no rows. `columns` are name and engine's type in their order; empty where not known."""

    names: tuple[str, ...]
    paths: tuple[str, ...] = ()  # Parquet files: absolute, as the cell sees them, or RANGED ones
    columns: tuple[tuple[str, str], ...] = ()
    table: int | None = None  # index of a TABLE frame
    sql: str = ""  # a virtual dataset


@dataclass(frozen=True, slots=True)
class Job:
    """A text to run over relations."""

    sql: str
    relations: tuple[Relation, ...]
    max_rows: int


class FailureKind(Enum):
    """Who is to do something about a failure, and what."""

    # The gate's word on a text.
    REFUSED = "refused"
    AMBIGUOUS = "ambiguous"
    # The engine's, on a text or on what it meets in rows.
    FAILED = "failed"
    # Trouble with a file of a dataset.
    FILES = "files"
    # Values that are not those of the text's parameters.
    PARAMETERS = "parameters"
    # A limit of the query.
    MEMORY = "memory"
    SCRATCH = "scratch"
    ROWS = "rows"
    # A defect of the engine: nobody's fault who asks.
    BROKEN = "broken"


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a cell gives no answer."""

    kind: FailureKind
    message: str
    line: int = 0  # 0 where no place in the text is known
    column: int = 0


@dataclass(frozen=True, slots=True)
class CellLimits:
    """What a cell may use. Sizes in bytes."""

    memory_bytes: int
    threads: int
    scratch_bytes: int


def pack_checked(checked: CheckedText) -> bytes:
    return json.dumps(asdict(checked)).encode()


def unpack_checked(payload: bytes) -> CheckedText:
    """Raises ProtocolError."""
    with _contents():
        fields = json.loads(payload)
        names = tuple(
            Name(_words(name["dataset_id"]), int(name["line"]), int(name["column"]), _mentions(name["mentions"]))
            for name in fields["names"]
        )
        return CheckedText(names, tuple(map(_words, fields["parameters"])))


def pack_virtual(virtual: VirtualTexts) -> bytes:
    return json.dumps(asdict(virtual)).encode()


def unpack_virtual(payload: bytes) -> VirtualTexts:
    fields = json.loads(payload)
    columns = {
        dataset_id: Columns(found["types"], tuple(found["order"])) for dataset_id, found in fields["columns"].items()
    }
    return VirtualTexts(_demands(fields["named"]), fields["sql"], fields["known"], columns)


def pack_demands(demands: Demands) -> bytes:
    found = {dataset_id: [[asdict(term) for term in terms] for terms in all_] for dataset_id, all_ in demands.items()}
    return json.dumps(found).encode()


def unpack_demands(payload: bytes) -> Demands:
    """Raises ProtocolError."""
    with _contents():
        return _demands(json.loads(payload))


@contextmanager
def _contents() -> Iterator[None]:
    """What is not of the form in which it is packed breaks the rules, in whichever way it fails here."""
    try:
        yield
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise ProtocolError("the contents of a frame make no sense") from error


def _words(value: object) -> str:
    """A string that can be sent on: JSON may have halves of characters, which no other side takes."""
    if not isinstance(value, str):
        raise TypeError(type(value))
    value.encode()
    return value


def _demands(fields: Mapping[str, Any]) -> Demands:
    return {_words(dataset_id): _mentions(mentions) for dataset_id, mentions in fields.items()}


def _mentions(mentions: list[list[Mapping[str, Any]]]) -> tuple[Terms, ...]:
    return tuple(
        tuple(
            Term(
                _words(term["column"]),
                _words(term["operator"]),
                tuple(
                    Constant(_words(value["kind"]), _words(value["text"]), _words(value["cast"]))
                    for value in term["values"]
                ),
            )
            for term in terms
        )
        for terms in mentions
    )


def pack_files(files: Sequence[RangedFile]) -> bytes:
    return json.dumps([(file.key, file.size_bytes) for file in files]).encode()


def unpack_files(payload: bytes) -> list[RangedFile]:
    return [RangedFile(key, size) for key, size in json.loads(payload)]


def pack_failure(failure: Failure) -> bytes:
    return json.dumps({**asdict(failure), "kind": failure.kind.value}).encode()


def unpack_failure(payload: bytes) -> Failure:
    """Raises ProtocolError."""
    with _contents():
        fields = json.loads(payload)
        return Failure(
            FailureKind(fields["kind"]), _words(fields["message"]), int(fields["line"]), int(fields["column"])
        )


def pack_job(job: Job) -> bytes:
    return json.dumps(asdict(job)).encode()


def unpack_job(payload: bytes) -> Job:
    fields = json.loads(payload)
    relations = tuple(
        Relation(
            names=tuple(relation["names"]),
            paths=tuple(relation["paths"]),
            columns=tuple((name, type_) for name, type_ in relation["columns"]),
            table=relation["table"],
            sql=relation["sql"],
        )
        for relation in fields["relations"]
    )
    return Job(fields["sql"], relations, fields["max_rows"])


def pack_limits(limits: CellLimits) -> str:
    return json.dumps(asdict(limits))


def unpack_limits(text: str) -> CellLimits:
    return CellLimits(**json.loads(text))
