"""The implementations that jobs can name, described: what each wants of its job.

What they do is the worker's business; here stands what a document has to say so that they can.
docs/capabilities/dag_configuration.md says it in prose.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, StrEnum, auto

from dispatcher.dag.model import JobKind
from traceapi.types.v1.dag_pb2 import Storage
from traceapi.types.v1.scope_pb2 import CursorType

PYTHON_RUNTIMES = ("python3.11", "python3.12", "python3.13", "python3.14")


class ValueKind(StrEnum):
    """What a key of `config` takes, as a problem names it."""

    TEXT = "text"
    PATH = "a path"
    SELECT = "one SELECT"
    COUNT = "a whole number"
    RATE = "a number"
    CURSOR = "a value of the output's cursor"
    WIDTH = "a width of the trigger's cursor"


@dataclass(frozen=True, slots=True)
class ConfigKey:
    """A key of `config`. Bounds are of numbers, both included."""

    name: str
    kind: ValueKind
    required: bool = False
    lowest: float = 1
    highest: float = 2**53


class Ordering(Enum):
    """Whether the tasks of a job run in scope order."""

    NEVER = auto()
    ON_REQUEST = auto()  # where the job says `ordered: true`
    ALWAYS = auto()


@dataclass(frozen=True, slots=True)
class Operator:
    """An implementation, and what a job that names it must look like."""

    name: str
    kind: JobKind
    config: tuple[ConfigKey, ...]
    storages: tuple[Storage.ValueType, ...]  # of its outputs, the default first
    one_output: bool = True
    one_trigger: bool = False
    cursors: tuple[CursorType.ValueType, ...] = ()  # of its triggers; empty for any
    reads: bool = True  # inputs that do not trigger make sense
    ordering: Ordering = Ordering.NEVER
    code: bool = False  # runs a bundle; then `config` is the code's own and may hold anything

    @property
    def known(self) -> bool:
        """False of the stand-in for an implementation that nobody knows."""
        return bool(self.name)

    @property
    def key_names(self) -> list[str]:
        return [key.name for key in self.config]


OPERATORS: Mapping[str, Operator] = {
    operator.name: operator
    for operator in (
        Operator(
            "replay",
            JobKind.SOURCE,
            config=(
                ConfigKey("path", ValueKind.PATH, required=True),
                ConfigKey("cursor", ValueKind.TEXT, required=True),
                ConfigKey("rate", ValueKind.RATE, lowest=0.001, highest=1e9),
                ConfigKey("limit", ValueKind.COUNT),
                ConfigKey("until", ValueKind.CURSOR),
                ConfigKey("batch_rows", ValueKind.COUNT, highest=1_000_000),
            ),
            storages=(Storage.STORAGE_PARQUET,),
        ),
        Operator(
            "aggregator",
            JobKind.OPERATOR,
            config=(ConfigKey("size", ValueKind.WIDTH, required=True),),
            storages=(Storage.STORAGE_NONE,),
            one_trigger=True,
            cursors=(CursorType.CURSOR_TYPE_INT64, CursorType.CURSOR_TYPE_TIMESTAMP),
            reads=False,
            ordering=Ordering.ALWAYS,
        ),
        Operator(
            "splitter",
            JobKind.OPERATOR,
            config=(),
            storages=(Storage.STORAGE_NONE,),
            one_trigger=True,
            reads=False,
        ),
        Operator(
            "sql",
            JobKind.OPERATOR,
            config=(ConfigKey("sql", ValueKind.SELECT, required=True),),
            storages=(Storage.STORAGE_PARQUET,),
            ordering=Ordering.ON_REQUEST,
        ),
        Operator(
            "noop",
            JobKind.OPERATOR,
            config=(ConfigKey("events", ValueKind.COUNT, highest=10_000_000),),
            storages=(Storage.STORAGE_NONE,),
            one_trigger=True,
            reads=False,
        ),
        Operator(
            "python",
            JobKind.OPERATOR,
            config=(),
            storages=(Storage.STORAGE_PARQUET, Storage.STORAGE_NONE),
            one_output=False,
            ordering=Ordering.ON_REQUEST,
            code=True,
        ),
    )
}


def any_operator(kind: JobKind) -> Operator:
    """Stands for an implementation that is not known: what one of them allows is not held against its job."""
    storages = (Storage.STORAGE_PARQUET, Storage.STORAGE_NONE)
    return Operator("", kind, config=(), storages=storages, one_output=False, ordering=Ordering.ALWAYS, code=True)


def names_of(kind: JobKind) -> list[str]:
    return [operator.name for operator in OPERATORS.values() if operator.kind is kind]
