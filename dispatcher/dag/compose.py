"""YAML text to a tree of nodes with positions, within limits that are kept while it is read, before anything expands.

A small document can stand for a huge one: aliases multiply (`[*a, *a]` of `[*b, *b]` ...), and nesting exhausts stacks.
Nodes are shared, so composing is cheap whatever the document. What walking the tree would meet is counted on the way,
and the document is refused at the alias or value that exceeds a limit.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import yaml

from dispatcher.dag.problems import Findings, Position, clip

_PREFIX = "tag:yaml.org,2002:"
_TAGS = frozenset({"str", "int", "float", "bool", "null", "map", "seq", "merge", "timestamp", "value"})


@dataclass(frozen=True, slots=True)
class Limits:
    """What a document may be at most. Aliases count as often as they are used."""

    size_bytes: int = 1 << 20
    depth: int = 32
    nodes: int = 100_000
    text_bytes: int = 4 << 20
    aliases: int = 1000


@dataclass(frozen=True, slots=True)
class Node:
    """A value of the document with the place where it was written (for an alias: where it stands for another)."""

    tag: str  # `str int float bool null timestamp` of a scalar, `merge` and `value` of keys, `seq`, `map`
    position: Position
    text: str = ""  # of a scalar
    style: str | None = None  # of a scalar: `'`, `"`, `|`, `>`, or None for a plain one
    items: tuple["Node", ...] = ()  # of a sequence
    pairs: tuple[tuple["Node", "Node"], ...] = ()  # of a mapping
    nodes: int = 1  # weight: nodes, itself included
    bytes: int = 0  # weight: bytes of scalars
    height: int = 1


@dataclass(slots=True)
class _Open:
    """A collection whose end has not been read yet."""

    tag: str
    position: Position
    anchor: str | None
    children: list[Node] = field(default_factory=list)


class _Refused(Exception):  # noqa: N818 -- it carries a problem of the document to `compose`
    def __init__(self, position: Position, message: str, remedy: str) -> None:
        super().__init__(message)
        self.position, self.message, self.remedy = position, message, remedy


def compose(text: str, findings: Findings, limits: Limits | None = None) -> Node | None:
    """The document's tree, or None after one problem: what follows a fault of the YAML itself cannot be told."""
    limits = limits or Limits()
    try:
        size = len(text.encode())
        if size > limits.size_bytes:
            raise _Refused(
                Position(1, 1),
                f"the document has {size:,} bytes, and {limits.size_bytes:,} are allowed",
                "split it into several DAGs",
            )
        return _Composer(limits).compose(yaml.parse(text, Loader=yaml.CSafeLoader))
    except _Refused as refused:
        findings.add(refused.position, (), refused.message, refused.remedy)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        position = Position(mark.line + 1, mark.column + 1) if mark else Position(1, 1)
        findings.add(position, (), f"this is not YAML: {error.problem or error.context}", "correct the YAML")
    except yaml.reader.ReaderError as error:
        before = text[: error.position]
        position = Position(before.count("\n") + 1, len(before) - before.rfind("\n"))
        findings.add(position, (), f"this is not YAML: {error.reason}", "take the character out, or write it escaped")
    except UnicodeEncodeError:
        findings.add(Position(1, 1), (), "the text is not valid Unicode", "save it as UTF-8")
    return None


class _Composer:
    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._resolver = yaml.resolver.Resolver()
        self._stack: list[_Open] = []
        self._anchors: dict[str, Node] = {}
        self._aliases = 0
        self._nodes = 0
        self._bytes = 0

    def compose(self, events: Iterator[yaml.Event]) -> Node | None:
        """Reads the events of one document."""
        root: Node | None = None
        documents = 0
        for event in events:
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    raise _Refused(_position(event), "a second document begins here", "keep one DAG in a file")
            node = self._read(event)
            if node is None:
                continue
            if self._stack:
                self._stack[-1].children.append(node)
            else:
                root = node
        return root

    def _read(self, event: yaml.Event) -> Node | None:
        """Takes one event; answers the node that it completes."""
        if isinstance(event, yaml.ScalarEvent):
            return self._scalar(event)
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event)
        if isinstance(event, (yaml.SequenceStartEvent, yaml.MappingStartEvent)):
            self._open(event)
        elif isinstance(event, (yaml.SequenceEndEvent, yaml.MappingEndEvent)):
            return self._close()
        return None

    def _scalar(self, event: yaml.ScalarEvent) -> Node:
        position = _position(event)
        size = len(event.value.encode())
        self._count(position, 1, size, 1)
        tag = event.tag
        if tag is None or tag == "!":
            tag = self._resolver.resolve(yaml.ScalarNode, event.value, event.implicit)  # type: ignore[no-untyped-call]
        node = Node(_short(tag, position), position, text=event.value, style=event.style, bytes=size)
        if event.anchor:
            self._anchors[event.anchor] = node
        return node

    def _open(self, event: yaml.SequenceStartEvent | yaml.MappingStartEvent) -> None:
        position = _position(event)
        kind = "seq" if isinstance(event, yaml.SequenceStartEvent) else "map"
        tag = kind if event.tag in (None, "!") else _short(event.tag, position)
        if tag != kind:
            raise _Refused(position, f"a {_KINDS[kind]} cannot have the tag `{clip(tag)}`", "take the tag out")
        self._count(position, 1, 0, 1)
        if event.anchor:
            self._anchors.pop(event.anchor, None)  # an alias inside it would mean the thing itself
        self._stack.append(_Open(tag, position, event.anchor))

    def _close(self) -> Node:
        done = self._stack.pop()
        children = done.children
        pairs = tuple(zip(children[::2], children[1::2], strict=True)) if done.tag == "map" else ()
        node = Node(
            done.tag,
            done.position,
            items=tuple(children) if done.tag == "seq" else (),
            pairs=pairs,
            nodes=1 + sum(child.nodes for child in children),
            bytes=sum(child.bytes for child in children),
            height=1 + max((child.height for child in children), default=0),
        )
        if done.anchor:
            self._anchors[done.anchor] = node
        return node

    def _alias(self, event: yaml.AliasEvent) -> Node:
        position = _position(event)
        anchor = event.anchor or ""
        self._aliases += 1
        if self._aliases > self._limits.aliases:
            raise _Refused(position, f"more than {self._limits.aliases} aliases", "write the values out")
        if any(outer.anchor == anchor for outer in self._stack):
            raise _Refused(position, f"`*{clip(anchor)}` stands inside of what it stands for", "write it out")
        node = self._anchors.get(anchor)
        if node is None:
            raise _Refused(position, f"nothing before has the anchor `&{clip(anchor)}`", "define it above")
        self._count(position, node.nodes, node.bytes, node.height)
        return Node(node.tag, position, node.text, None, node.items, node.pairs, node.nodes, node.bytes, node.height)

    def _count(self, position: Position, nodes: int, size: int, height: int) -> None:
        self._nodes += nodes
        self._bytes += size
        limits = self._limits
        if len(self._stack) + height > limits.depth:
            raise _Refused(
                position, f"nested more than {limits.depth} deep", "a DAG document needs less than ten levels"
            )
        if self._nodes > limits.nodes:
            raise _Refused(
                position, f"more than {limits.nodes:,} values, aliases written out", "split it into several DAGs"
            )
        if self._bytes > limits.text_bytes:
            raise _Refused(
                position, f"more than {limits.text_bytes:,} bytes, aliases written out", "split it into several DAGs"
            )


_KINDS = {"seq": "list", "map": "mapping"}


def _short(tag: str, position: Position) -> str:
    short = tag.removeprefix(_PREFIX)
    if short not in _TAGS or not tag.startswith(_PREFIX):
        raise _Refused(position, f"the tag `{clip(tag)}` has no meaning here", "take it out")
    return short


def _position(event: yaml.Event) -> Position:
    mark = event.start_mark
    return Position(mark.line + 1, mark.column + 1) if mark else Position(1, 1)
