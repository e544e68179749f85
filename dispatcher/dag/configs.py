"""Checks of a job's `config` against what its implementation takes."""

from google.protobuf.struct_pb2 import Struct, Value

from dispatcher.dag.messages import enum_word
from dispatcher.dag.operators import ConfigKey, Operator, ValueKind
from dispatcher.dag.problems import Findings, Path, clip, listed
from dispatcher.dag.scalars import duration_nanos, duration_text
from kernel.scopes import parse_cursor
from traceapi.types.v1.dag_pb2 import JobSpec
from traceapi.types.v1.scope_pb2 import CursorType

_SHOWN = {"string_value": "text", "number_value": "a number", "bool_value": "true or false", "null_value": "nothing"}


def check_config(
    name: str, job: JobSpec, operator: Operator, cursor_type: CursorType.ValueType, findings: Findings
) -> None:
    """Reports faults of `config`; `cursor_type` is the trigger's or a source's output's, unspecified where unknown."""
    if operator.code:
        return
    path: Path = ("jobs", name, "config")
    fields = job.config.fields
    for unknown in sorted(set(fields) - set(operator.key_names)):
        otherwise = f"it takes {listed(operator.key_names)}" if operator.config else "leave `config` out"
        near = findings.nearest(unknown, operator.key_names)
        remedy = f"did you mean `{near}`?" if near else otherwise
        findings.at_key((*path, unknown), f"`{operator.name}` takes no `{clip(unknown)}`", remedy)
        if near:
            findings.mark_broken((*path, near))
    for key in operator.config:
        here: Path = (*path, key.name)
        if findings.broken(here):
            continue
        if key.name in fields:
            check_value(key, fields[key.name], cursor_type, here, findings)
        elif key.required:
            message = f"`{operator.name}` needs `config.{key.name}`, {key.kind}"
            findings.at_key(here, message, f"write `config: {{{key.name}: ...}}`")
            findings.mark_broken(here)


def check_value(
    key: ConfigKey, value: Value, cursor_type: CursorType.ValueType, path: Path, findings: Findings
) -> None:
    """Reports what is wrong with the value of one key."""
    fault = _fault(key, value, cursor_type)
    if fault is not None:
        findings.at_value(path, *fault)
        findings.mark_broken(path)


def normal_config(config: Struct, operator: Operator, cursor_type: CursorType.ValueType) -> Struct:
    """`config` with durations in seconds, so that `1h` and `3600s` are one."""
    normal = Struct()
    normal.CopyFrom(config)
    for key in operator.config:
        text = config.fields[key.name].string_value if key.name in config.fields else ""
        if key.kind is ValueKind.WIDTH and cursor_type == CursorType.CURSOR_TYPE_TIMESTAMP:
            nanos = duration_nanos(text)
            if nanos is not None:
                normal.fields[key.name].string_value = duration_text(nanos)
    return normal


def _fault(key: ConfigKey, value: Value, cursor_type: CursorType.ValueType) -> tuple[str, str] | None:
    if key.kind in (ValueKind.TEXT, ValueKind.PATH, ValueKind.SELECT):
        return _text_fault(value, key.kind)
    if key.kind is ValueKind.COUNT:
        return _number_fault(key, value, whole=True)
    if key.kind is ValueKind.RATE:
        return _number_fault(key, value, whole=False)
    if key.kind is ValueKind.WIDTH:
        return _width_fault(key, value, cursor_type)
    return _cursor_fault(value, cursor_type)


def _text_fault(value: Value, kind: ValueKind) -> tuple[str, str] | None:
    if not value.HasField("string_value"):
        return f"{kind} is wanted here, and this is {_shown(value)}", "write it as text"
    if not value.string_value.strip():
        return "the text is empty", f"write {kind}"
    if kind is ValueKind.SELECT and len(value.string_value.encode()) > 65536:
        return "the SQL has more than 65,536 bytes", "split it into several jobs"
    return None


def _number_fault(key: ConfigKey, value: Value, *, whole: bool) -> tuple[str, str] | None:
    wanted = "a whole number" if whole else "a number"
    bounds = f"write {wanted} from {_number(key.lowest)} to {_number(key.highest)}"
    if not value.HasField("number_value"):
        return f"{wanted} is wanted here, and this is {_shown(value)}", bounds
    number = value.number_value
    if not key.lowest <= number <= key.highest or (whole and not number.is_integer()):
        return f"{_number(number)} is not {wanted} that `{key.name}` can be", bounds
    return None


def _width_fault(key: ConfigKey, value: Value, cursor_type: CursorType.ValueType) -> tuple[str, str] | None:
    if cursor_type == CursorType.CURSOR_TYPE_INT64:
        return _number_fault(key, value, whole=True)
    of_timestamp = cursor_type == CursorType.CURSOR_TYPE_TIMESTAMP
    if value.HasField("number_value") and not of_timestamp and _number_fault(key, value, whole=True) is None:
        return None
    nanos = duration_nanos(value.string_value) if value.HasField("string_value") else None
    if nanos is not None and nanos > 0 and nanos % 1000 == 0:
        return None
    shown = _shown(value)
    if of_timestamp:
        message = f"a duration of whole microseconds is wanted here, and this is {shown}"
        return message, "the trigger's cursor is a timestamp: write it like `1h` or `300s`"
    # Nothing is said of the trigger's cursor, which is not known.
    message = f"a whole number from 1 or a duration of whole microseconds is wanted here, and this is {shown}"
    return message, "write it as the trigger's cursor is: like `100`, or like `1h` where that is a timestamp"


def _cursor_fault(value: Value, cursor_type: CursorType.ValueType) -> tuple[str, str] | None:
    if cursor_type == CursorType.CURSOR_TYPE_UNSPECIFIED:
        return None
    word = enum_word(CursorType.DESCRIPTOR, cursor_type)
    remedy = f"write a value of the output's cursor, which is {word}"
    number = value.number_value
    text = value.string_value
    if value.HasField("number_value"):
        if cursor_type != CursorType.CURSOR_TYPE_INT64 or not number.is_integer():
            return f"{_number(number)} is no {word}", remedy
        text = _number(number)
    elif not value.HasField("string_value"):
        return f"a cursor is wanted here, and this is {_shown(value)}", remedy
    try:
        parse_cursor(text, cursor_type)
    except ValueError:
        return f"`{clip(text)}` is no {word}", remedy
    return None


def _shown(value: Value) -> str:
    if value.HasField("string_value"):
        return f"`{clip(value.string_value)}`"
    if value.HasField("number_value"):
        return f"`{_number(value.number_value)}`"
    return _SHOWN.get(value.WhichOneof("kind") or "", "a list or a mapping")


def _number(number: float) -> str:
    return str(int(number)) if number == int(number) else str(number)
