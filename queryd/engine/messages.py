"""What queryd and a cell say to each other, in the frames of queryd/engine/frames.py.

Both sides are this file. It needs the standard library only, because a cell loads it before it is asked anything. A
cell is not trusted once it has run a text: queryd takes from what it says nothing but data.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from queryd.demands import Demands
from queryd.terms import Constant, Term, Terms


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
    """The virtual datasets behind a text: `sql` of each by its id; `named` is what the text itself demands, and `known`
    has the ids of all datasets by their names, folded."""

    named: Demands
    sql: Mapping[str, str]
    known: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Relation:
    """One dataset as the engine sees it: views under `names`, the dataset's id first, of what one other field says."""

    names: tuple[str, ...]
    paths: tuple[str, ...] = ()  # Parquet files, absolute, as the cell sees them
    columns: tuple[tuple[str, str], ...] = ()  # an empty dataset: name and engine's type
    table: int | None = None  # index of a TABLE frame
    sql: str = ""  # a virtual dataset


@dataclass(frozen=True, slots=True)
class Job:
    """A text to run over relations."""

    sql: str
    relations: tuple[Relation, ...]
    max_rows: int


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a cell gives no answer. `kind`: refused, ambiguous, failed, files, memory, rows."""

    kind: str
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
    fields = json.loads(payload)
    names = tuple(
        Name(str(name["dataset_id"]), int(name["line"]), int(name["column"]), _mentions(name["mentions"]))
        for name in fields["names"]
    )
    return CheckedText(names, tuple(map(str, fields["parameters"])))


def pack_virtual(virtual: VirtualTexts) -> bytes:
    return json.dumps(asdict(virtual)).encode()


def unpack_virtual(payload: bytes) -> VirtualTexts:
    fields = json.loads(payload)
    return VirtualTexts(_demands(fields["named"]), fields["sql"], fields["known"])


def pack_demands(demands: Demands) -> bytes:
    found = {dataset_id: [[asdict(term) for term in terms] for terms in all_] for dataset_id, all_ in demands.items()}
    return json.dumps(found).encode()


def unpack_demands(payload: bytes) -> Demands:
    return _demands(json.loads(payload))


def _demands(fields: Mapping[str, Any]) -> Demands:
    return {str(dataset_id): _mentions(mentions) for dataset_id, mentions in fields.items()}


def _mentions(mentions: list[list[Mapping[str, Any]]]) -> tuple[Terms, ...]:
    return tuple(
        tuple(
            Term(
                str(term["column"]),
                str(term["operator"]),
                tuple(Constant(str(value["kind"]), str(value["text"]), str(value["cast"])) for value in term["values"]),
            )
            for term in terms
        )
        for terms in mentions
    )


def pack_failure(failure: Failure) -> bytes:
    return json.dumps(asdict(failure)).encode()


def unpack_failure(payload: bytes) -> Failure:
    fields: Mapping[str, object] = json.loads(payload)
    line, column = fields.get("line"), fields.get("column")
    return Failure(
        str(fields.get("kind")),
        str(fields.get("message")),
        line if isinstance(line, int) else 0,
        column if isinstance(column, int) else 0,
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
