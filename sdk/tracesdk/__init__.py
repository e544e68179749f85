"""The kit that operators are written with; it runs in the sandbox, against its wrapper's socket only."""

from tracesdk.errors import (
    InvalidOutput,
    OperatorError,
    SchemaMismatch,
    TaskCanceled,
    TransientError,
    WrapperGone,
    WrapperRefused,
)
from tracesdk.job import Input, Job, OutputDataset
from tracesdk.operators import Operator, OrderedOperator, Source
from tracesdk.run import Run
from tracesdk.scopes import Cursor, CursorType, Event, RangeManifest, Scope, ScopeKind
from tracesdk.source import SourceEvent, SourceRun
from tracesdk.task import Task, TaskLog
from tracesdk.unit import Output, Rows

__all__ = [
    "Cursor",
    "CursorType",
    "Event",
    "Input",
    "InvalidOutput",
    "Job",
    "Operator",
    "OperatorError",
    "OrderedOperator",
    "Output",
    "OutputDataset",
    "RangeManifest",
    "Rows",
    "Run",
    "SchemaMismatch",
    "Scope",
    "ScopeKind",
    "Source",
    "SourceEvent",
    "SourceRun",
    "Task",
    "TaskCanceled",
    "TaskLog",
    "TransientError",
    "WrapperGone",
    "WrapperRefused",
]
