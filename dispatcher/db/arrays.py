"""Lists as array parameters, fast: the batch statements of the hot path send little else.

psycopg dumps lists of any depth and type, element by element; that took 28 % of the dispatcher's CPU in a run of 10^5
tasks. Ours are flat and of few types, and every statement casts them (`%(task_ids)s::uuid[]`), so one literal in
Postgres' array syntax does.
"""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from psycopg import AsyncConnection
from psycopg.adapt import Buffer, Dumper
from psycopg.rows import TupleRow
from psycopg.types.json import Jsonb, JsonbDumper

_MICROSECOND = timedelta(microseconds=1)


def _text(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


_ELEMENTS: dict[type, Callable[[Any], str]] = {
    str: _text,
    bytes: lambda value: f'"\\\\x{value.hex()}"',
    int: str,
    bool: lambda value: "t" if value else "f",
    datetime: lambda value: f'"{value.isoformat()}"',
    timedelta: lambda value: f'"{value // _MICROSECOND} microseconds"',
}


class ArrayDumper(Dumper):
    """A flat list of one type, None for NULL, as an array literal of a type that the statement states."""

    def dump(self, obj: Any) -> Buffer | None:
        """Raises TypeError for elements that no statement of ours sends."""
        kind = next((type(item) for item in obj if item is not None), str)
        element = self._jsonb if kind is Jsonb else _ELEMENTS.get(kind)
        if element is None:
            raise TypeError(f"arrays of {kind.__name__} are not sent; add it here")
        if kind is str and None not in obj:
            texts = '","'.join(obj)
            if "\\" not in texts and texts.count('"') == 2 * (len(obj) - 1):  # ids, nearly always: nothing to escape
                return f'{{"{texts}"}}'.encode()
        parts: list[str] = []
        last, text = None, "NULL"
        for item in obj:
            if item is not last:  # many rows of a batch share a time, or have none
                last, text = item, "NULL" if item is None else element(item)
            parts.append(text)
        return f"{{{','.join(parts)}}}".encode()

    def _jsonb(self, value: Jsonb) -> str:
        dumped = JsonbDumper(Jsonb, self.connection).dump(value)
        return _text(bytes(dumped or b"null").decode())


def send_lists_as_literals(connection: AsyncConnection[TupleRow]) -> None:
    """From now on, on this connection."""
    connection.adapters.register_dumper(list, ArrayDumper)
