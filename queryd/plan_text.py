"""The engine's plan as text for people: one operator a line, what it reads from indented below it."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

_ROWS = "Estimated Cardinality"
_MOST_VALUE = 200
_DEEPEST = 500


def plan_text(plan: str) -> str:
    """From the JSON of EXPLAIN. Falls back to the JSON itself where that has another shape."""
    try:
        roots = json.loads(plan)
        return "\n".join(line for root in roots for line in _lines(root, 0)) + "\n"
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return plan


def _lines(node: Mapping[str, Any], depth: int) -> Iterator[str]:
    if depth > _DEEPEST:
        return
    details: Mapping[str, Any] = node.get("extra_info", {})
    facts = [f"{name}: {_value(value)}" for name, value in details.items() if name != _ROWS and value not in ("", [])]
    rows = f" (about {details[_ROWS]} rows)" if _ROWS in details else ""
    name = str(node["name"]).strip()
    yield "  " * depth + name + rows + ("  " + "; ".join(facts) if facts else "")
    for child in node["children"]:
        yield from _lines(child, depth + 1)


def _value(value: object) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    text = " ".join(text.split())
    return text if len(text) <= _MOST_VALUE else text[: _MOST_VALUE - 1] + "…"
