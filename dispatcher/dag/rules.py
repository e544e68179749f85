"""The rules that the contract states as protovalidate options, with the place in the document where each is broken."""

from collections.abc import Iterable, Iterator
from typing import Any

import protovalidate
from google.protobuf.message import Message

from dispatcher.dag.messages import enum_word
from dispatcher.dag.problems import Findings, Path, clip, listed

# What is to be added for a key that the document lacks; for others the key itself.
_EXAMPLES = {"dag": "dag: name", "jobs": "jobs:` with one job at least below it, like `name: {source: replay, ...}"}
# Patterns of the contract in words. One that is not here is shown as it is.
_PATTERNS = {
    "^[a-z][a-z0-9_-]{0,62}$": "use 1 to 63 lower-case letters, digits, `_` and `-`, beginning with a letter",
    "^[A-Za-z_][A-Za-z0-9_.]*:[A-Za-z_][A-Za-z0-9_]*$": "write it as `module:function`",
    "^([0-9a-f]{64})?$": "write 64 lower-case hexadecimal digits, or leave it out",
    "^[A-Za-z_][A-Za-z0-9_]{0,127}$": "use 1 to 128 letters, digits and `_`, not beginning with a digit",
}


def check_rules(message: Message, findings: Findings) -> None:
    """Reports every rule that `message` breaks, but for what is faulty already."""
    for violation in protovalidate.collect_violations(message):
        elements = violation.proto.field.elements if violation.proto.field else ()
        path, choice, field = _path(elements, message)
        if any(findings.broken(part) for part in (path, *((*path[:-1], name) for name in choice))):
            continue
        if choice:
            findings.at_key(path[:-1], f"none of {listed(choice)} is given", f"give one of {listed(choice)}")
        elif violation.proto.for_key:
            findings.at_key(path, *_words(violation))
        elif field is not None and not violation.field_value and not findings.places.has(path):
            findings.at_key(path, *_missing(field))
        else:
            findings.at_value(path, *_words(violation))
        findings.mark_broken(path)


def _path(elements: Iterable[Any], message: Message) -> tuple[Path, list[str], Any]:
    """The path of a violation; the names of the alternatives where it is about a `oneof`; the field where it is about
    one as a whole, and not about an entry of a list or a map."""
    path: list[str | int] = []
    field: Any = None
    descriptor: Any = message.DESCRIPTOR
    for element in elements:
        path.append(element.field_name)
        if element.field_name in descriptor.oneofs_by_name:
            return tuple(path), [field.name for field in descriptor.oneofs_by_name[element.field_name].fields], None
        field = descriptor.fields_by_name[element.field_name]
        path.extend(_subscript(element))
        descriptor = field.message_type
        if descriptor is not None and descriptor.GetOptions().map_entry:
            descriptor = descriptor.fields_by_name["value"].message_type
    whole = field is not None and path[-1] == field.name
    return tuple(path), [], field if whole else None


def _subscript(element: Any) -> Iterator[str | int]:
    subscript = element.subscript
    if subscript is not None:
        yield int(subscript.value) if subscript.field == "index" else str(subscript.value)


def _missing(field: Any) -> tuple[str, str]:
    """For a key that has to be there and is not."""
    key = field.name
    if field.enum_type is not None:
        words = [enum_word(field.enum_type, value.number) for value in field.enum_type.values if value.number]
        return f"`{key}` is not given", f"add `{key}:` with {listed(words)}"
    return f"`{key}` is not given", f"add `{_EXAMPLES.get(key, f'{key}: ...')}`"


def _words(violation: protovalidate.Violation) -> tuple[str, str]:
    rule, value, limit = violation.proto.rule_id, violation.field_value, violation.rule_value
    if rule == "string.pattern" and not value:
        return "the text is empty", _PATTERNS.get(str(limit), f"write text that matches {limit}")
    if rule == "string.pattern":
        remedy = _PATTERNS.get(str(limit), f"write text that matches {limit}")
        return f"`{clip(str(value))}` is not allowed here", remedy
    if rule.endswith(("min_bytes", "min_len")) and not value:
        return "the text is empty", "write one"
    if rule == "enum.not_in":
        return "it is not given", "write one of the words that the key knows"
    if rule == "map.min_pairs":
        return "there is nothing in it", f"write at least {limit} entry below it"
    if rule in ("map.max_pairs", "repeated.max_items"):
        return f"it has more than {limit} entries", f"write at most {limit}"
    return f"its value {violation.proto.message}", "write a value within the limit"
