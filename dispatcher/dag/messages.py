"""A tree of nodes to a message, by the message's descriptor: what the contract can say, the document can say.

Field names are keys; enum values are words, without their prefix and in lower case; a Duration is `300s`; a map is a
mapping with text keys. Every fault is reported and the rest is read. Rules that the contract states as options (limits,
patterns) are another module's, `rules`.
"""

from collections.abc import Callable, Iterator
from typing import Any

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Struct

from dispatcher.dag.compose import Node
from dispatcher.dag.problems import Findings, Path, clip, listed
from dispatcher.dag.scalars import MAX_EXACT_INTEGER, decimal_integer, duration, duration_nanos, finite_number

_INTEGERS = {
    FieldDescriptor.TYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.TYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.TYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.TYPE_UINT64: (0, 2**64 - 1),
}
_KINDS = {
    "map": "a mapping",
    "seq": "a list",
    "null": "nothing",
    "bool": "true or false",
    "int": "a number",
    "float": "a number",
    "timestamp": "a date",
}
_TRUE, _FALSE = frozenset({"true", "yes", "on"}), frozenset({"false", "no", "off"})
# Values that YAML reads as something else than text, though a person may well mean text.
_UNQUOTED = frozenset({"int", "float", "bool", "timestamp", "null", "value", "merge"})


class _Faulty(Exception):  # noqa: N818 -- no error: it only leaves the value that was being read
    """The value cannot be read; the problem has been reported."""


class MessageReader:
    """Reads nodes into messages and keeps the place of everything that it reads."""

    def __init__(self, findings: Findings) -> None:
        self._findings = findings
        self._places = findings.places

    def read(self, node: Node, message: Message, path: Path) -> None:
        """Fills `message` from a mapping."""
        if node.tag == "null":
            return
        if node.tag != "map":
            self._wrong_type(node, path, "a mapping", _keys_of(message.DESCRIPTOR))
            return
        chosen: dict[
            str, str
        ] = {}  # alternatives of which one may be given: the name of the choice -> the key that stands
        fields = message.DESCRIPTOR.fields_by_name
        for key, name, value in self._pairs(node, path):
            field = fields.get(name)
            if field is None:
                self._unknown_key(key, name, message.DESCRIPTOR, path)
                continue
            here = (*path, name)
            self._place(here, key, value)
            choice = field.containing_oneof
            if choice is not None and len(choice.fields) > 1:
                if choice.name in chosen:
                    words = listed(sorted(option.name for option in choice.fields))
                    message_text = f"`{name}` beside `{chosen[choice.name]}`"
                    self._findings.at_key(here, message_text, f"give one of {words}")
                    continue
                chosen[choice.name] = name
            self._read_field(message, field, value, here)

    def _read_field(self, message: Message, field: Any, node: Node, path: Path) -> None:
        try:
            if field.message_type is not None and field.message_type.GetOptions().map_entry:
                self._read_map(getattr(message, field.name), field.message_type, node, path)
            elif field.is_repeated:
                self._read_list(getattr(message, field.name), field, node, path)
            elif field.message_type is not None:
                self._read_message(getattr(message, field.name), node, path)
            else:
                setattr(message, field.name, self._scalar(field, node, path))
        except _Faulty:
            return

    def _read_message(self, target: Message, node: Node, path: Path) -> None:
        name = target.DESCRIPTOR.full_name
        if name == "google.protobuf.Duration":
            target.CopyFrom(duration(self._duration(node, path)))
        elif name == "google.protobuf.Struct":
            if node.tag not in ("map", "null"):
                self._wrong_type(node, path, "a mapping", "write `key: value` lines below it")
                return
            target.SetInParent()
            _fill_struct(target, self._plain_mapping(node, path) if node.tag == "map" else {})
        else:
            if node.tag == "map":
                target.SetInParent()
            self.read(node, target, path)

    def _read_map(self, target: Any, entry: Descriptor, node: Node, path: Path) -> None:
        if node.tag == "null":
            return
        if node.tag != "map":
            self._wrong_type(node, path, "a mapping", "write `name: ...` lines below it")
            return
        value_field = entry.fields_by_name["value"]
        for key, name, value in self._pairs(node, path):
            here = (*path, name)
            self._place(here, key, value)
            try:
                if value_field.message_type is not None:
                    self._read_message(target[name], value, here)
                else:
                    target[name] = self._scalar(value_field, value, here)
            except _Faulty:
                continue

    def _read_list(self, target: Any, field: FieldDescriptor, node: Node, path: Path) -> None:
        if node.tag == "null":
            return
        if node.tag != "seq":
            self._wrong_type(node, path, "a list", "write `[a, b]`, or `- a` lines below it")
            return
        for index, item in enumerate(node.items):
            here = (*path, index)
            self._place(here, item, item)
            try:
                if field.message_type is not None:
                    self._read_message(target.add(), item, here)
                else:
                    target.append(self._scalar(field, item, here))
            except _Faulty:
                continue

    def _pairs(self, node: Node, path: Path) -> Iterator[tuple[Node, str, Node]]:
        """Keys, as nodes and as text, with their values; what `<<` merges in comes last and never replaces a key."""
        seen: dict[str, Node] = {}
        merged: list[Node] = []
        for key, value in node.pairs:
            if key.tag == "merge":
                merged += value.items if value.tag == "seq" else [value]
                continue
            name = self._key(key, path)
            if name is None or self._findings.full:
                continue
            if name in seen:
                first = seen[name].position
                self._findings.add(
                    key.position,
                    (*path, name),
                    f"`{clip(name)}` is given twice, first in line {first.line}, column {first.column}",
                    "remove one of them",
                )
                continue
            seen[name] = key
            yield key, name, value
        for source in merged:
            if source.tag != "map":
                self._findings.add(source.position, path, "`<<` merges mappings only", "give it the alias of a mapping")
                continue
            for key, name, value in self._pairs(source, path):
                if name not in seen:
                    seen[name] = key
                    yield key, name, value

    def _key(self, key: Node, path: Path) -> str | None:
        if key.tag == "str":
            return key.text
        if key.tag in _UNQUOTED and key.text:
            message = f"the key {clip(key.text)} is read as {_kind(key)}, and keys are text"
            self._findings.add(key.position, path, message, f'write "{clip(key.text)}" in quotes')
        else:
            self._findings.add(key.position, path, "the key is not text", "write a name before the colon")
        self._findings.mark_broken(path)
        return None

    def _unknown_key(self, key: Node, name: str, descriptor: Any, path: Path) -> None:
        near = self._findings.nearest(name, descriptor.fields_by_name)
        remedy = f"did you mean `{near}`?" if near else _keys_of(descriptor)
        self._findings.add(key.position, (*path, name), f"unknown key `{clip(name)}`", remedy)
        if near:
            self._findings.mark_broken((*path, near))
        else:
            self._findings.mark_broken((*path, name))

    def _scalar(self, field: FieldDescriptor, node: Node, path: Path) -> Any:
        if field.enum_type is not None:
            return self._enum(field.enum_type, node, path)
        if field.type == FieldDescriptor.TYPE_STRING:
            return self._text(node, path)
        if field.type == FieldDescriptor.TYPE_BOOL:
            return self._boolean(node, path)
        if field.type in _INTEGERS:
            return self._integer(node, path, *_INTEGERS[field.type])
        raise NotImplementedError(f"no text form for {field.full_name}")

    def _enum(self, enum: EnumDescriptor, node: Node, path: Path) -> int:
        prefix = _prefix(enum)
        words = {value.name.removeprefix(prefix).lower(): value.number for value in enum.values if value.number}
        if node.tag != "str" and not (node.tag in _UNQUOTED and node.text):
            self._wrong_type(node, path, f"one of {listed(words)}", f"write {listed(words)}")
            raise _Faulty
        if node.text not in words:
            remedy = self._findings.suggestion(node.text, words, f"write {listed(words)}")
            self._findings.at_value(path, f"unknown word `{clip(node.text)}`; known are {listed(words)}", remedy)
            self._findings.mark_broken(path)
            raise _Faulty
        return words[node.text]

    def _text(self, node: Node, path: Path) -> str:
        if node.tag == "str":
            if "\x00" in node.text:
                self._findings.at_value(path, "the text holds a NUL character", "take it out")
                self._findings.mark_broken(path)
                raise _Faulty
            return node.text
        remedy = f'write "{clip(node.text)}" in quotes' if node.tag in _UNQUOTED and node.text else "write one text"
        self._wrong_type(node, path, "text", remedy)
        raise _Faulty

    def _boolean(self, node: Node, path: Path) -> bool:
        word = node.text.lower()
        if node.tag != "bool" or word not in _TRUE | _FALSE:
            self._wrong_type(node, path, "true or false", "write `true` or `false`")
            raise _Faulty
        return word in _TRUE

    def _integer(self, node: Node, path: Path, lowest: int, highest: int) -> int:
        number = decimal_integer(node.text) if node.tag == "int" else None
        if number is None:
            self._wrong_type(node, path, "a whole number", "write it in plain decimal digits, without quotes")
            raise _Faulty
        if not lowest <= number <= highest:
            self._findings.at_value(path, f"{number} is out of range", f"write a number from {lowest} to {highest}")
            self._findings.mark_broken(path)
            raise _Faulty
        return number

    def _duration(self, node: Node, path: Path) -> int:
        nanos = duration_nanos(node.text) if node.tag == "str" else None
        if nanos is None or nanos > 315_576_000_000 * 10**9:
            number = node.tag == "int" and decimal_integer(node.text) is not None
            remedy = (
                f"say the unit: `{clip(node.text)}s`" if number else "write it like `300s`, `5m`, `1h30m` or `250ms`"
            )
            self._wrong_type(node, path, "a duration", remedy)
            raise _Faulty
        return nanos

    def _plain_mapping(self, node: Node, path: Path) -> dict[str, Any]:
        plain: dict[str, Any] = {}
        for key, name, value in self._pairs(node, path):
            here = (*path, name)
            self._place(here, key, value)
            try:
                plain[name] = self._plain(value, here)
            except _Faulty:
                continue
        return plain

    def _plain(self, node: Node, path: Path) -> Any:
        """A value of a `config`, whose keys only the job's implementation knows."""
        readers: dict[str, Callable[[], Any]] = {
            "map": lambda: self._plain_mapping(node, path),
            "seq": lambda: self._plain_list(node, path),
            "null": lambda: None,
            "bool": lambda: self._boolean(node, path),
            "int": lambda: self._plain_integer(node, path),
            "float": lambda: self._plain_float(node, path),
            "str": lambda: self._text(node, path),
        }
        return readers.get(node.tag, lambda: node.text)()  # a date is the text that it was written as

    def _plain_list(self, node: Node, path: Path) -> list[Any]:
        plain = []
        for index, item in enumerate(node.items):
            self._place((*path, index), item, item)
            plain.append(self._plain(item, (*path, index)))
        return plain

    def _plain_integer(self, node: Node, path: Path) -> int:
        number = self._integer(node, path, -(2**63), 2**64)
        if abs(number) > MAX_EXACT_INTEGER:
            self._findings.at_value(path, f"{number} cannot be kept exactly as a number", f'write "{number}" in quotes')
            self._findings.mark_broken(path)
            raise _Faulty
        return number

    def _plain_float(self, node: Node, path: Path) -> float:
        number = finite_number(node.text)
        if number is None:
            self._wrong_type(node, path, "a finite number", "write it in decimal digits, or in quotes to make it text")
            raise _Faulty
        return number

    def _wrong_type(self, node: Node, path: Path, wanted: str, remedy: str) -> None:
        shown = f"`{clip(node.text)}`" if node.text else _kind(node)
        self._findings.at_value(path, f"{wanted} is wanted here, and this is {shown}", remedy)
        self._findings.mark_broken(path)

    def _place(self, path: Path, key: Node, value: Node) -> None:
        scalar = value.tag not in ("map", "seq")
        self._places.add(path, key.position, value.position, value.text if scalar else None, value.style)


def enum_word(enum: EnumDescriptor, number: int) -> str:
    """An enum value as a document writes it; empty for the unspecified one."""
    return enum.values_by_number[number].name.removeprefix(_prefix(enum)).lower() if number else ""


def _prefix(enum: EnumDescriptor) -> str:
    return enum.values_by_number[0].name.removesuffix("UNSPECIFIED")


def _kind(node: Node) -> str:
    return _KINDS.get(node.tag, "text")


def _keys_of(descriptor: Any) -> str:
    return f"known keys here are {listed(field.name for field in descriptor.fields)}"


def _fill_struct(target: Message, plain: dict[str, Any]) -> None:
    if isinstance(target, Struct):
        target.update(plain)
