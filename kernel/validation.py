"""The contract's rules (`buf.validate`) on a message: every violation at once, as one INVALID_REQUEST."""

from google.protobuf.message import Message
from protovalidate import FieldPathPb, ViolationPb, collect_violations

from kernel.errors import TraceError, Violation
from traceapi.types.v1 import errors_pb2

_SHOWN = 3


def violations_of(message: Message) -> tuple[Violation, ...]:
    """Every rule that the message breaks, by the path of its field; empty when it breaks none."""
    return tuple(_violation(found.proto) for found in collect_violations(message))


def validate_message(message: Message) -> None:
    """TraceError INVALID_REQUEST with all violations; its message names the first few."""
    violations = violations_of(message)
    if violations:
        raise invalid_request(violations)


def invalid_request(violations: tuple[Violation, ...]) -> TraceError:
    """The refusal of a request for these violations."""
    shown = "; ".join(f"{found.field or 'request'}: {found.description}" for found in violations[:_SHOWN])
    more = f"; and {len(violations) - _SHOWN} more" if len(violations) > _SHOWN else ""
    return TraceError(errors_pb2.ERROR_REASON_INVALID_REQUEST, shown + more, violations=violations)


def _violation(found: ViolationPb) -> Violation:
    description = found.message or found.rule_id
    return Violation(_path(found.field), f"the key {description}" if found.for_key else description)


def _path(path: FieldPathPb | None) -> str:
    """The path as people write it: `items[3].scope`, `schema["number"]`."""
    parts: list[str] = []
    for element in path.elements if path else ():
        if element.field_name:
            parts.append(f".{element.field_name}" if parts else element.field_name)
        if element.subscript is not None:
            key = element.subscript.value
            parts.append(f'["{key}"]' if isinstance(key, str) else f"[{key}]")
    return "".join(parts)
