"""Watermarks of outputs whose jobs keep no state: moved by a duty, never back.

A stateless job has done everything up to a cursor when its inputs are complete up to it and no task at or below it is
open. Events and their tasks appear in one transaction, before or with the watermark that covers them; so what the
query sees is never too far. A DEAD task holds the watermark; a skipped one does not.
"""

from dispatcher.db.rows import Connection
from dispatcher.events import store
from dispatcher.events.rows import (
    DerivedWatermark,
)
from traceapi.types.v1.scope_pb2 import CURSOR_TYPE_INT64, CURSOR_TYPE_TIMESTAMP

_FIXED_WIDTH = frozenset({CURSOR_TYPE_INT64, CURSOR_TYPE_TIMESTAMP})


async def derive_watermarks(connection: Connection) -> int:
    """Moves what can move; answers how many did."""
    by_version: dict[str, list[DerivedWatermark]] = {}
    for derived in await store.derived_watermarks(connection):
        by_version.setdefault(derived.dataset_version_id, []).append(derived)
    moves: dict[str, bytes] = {}
    for version_id, parts in by_version.items():
        keys = [key for part in parts if (key := complete_up_to(part)) is not None]
        # A dataset with several writers is complete where all of them are.
        if len(keys) < parts[0].producers:
            continue
        if parts[0].present is None or min(keys) > parts[0].present:
            moves[version_id] = min(keys)
    return await store.move_watermarks(connection, moves)


def complete_up_to(derived: DerivedWatermark) -> bytes | None:
    """The largest cursor key that is complete, None where there is none to name."""
    if derived.first_open is None or derived.first_open > derived.covered:
        return derived.covered
    if derived.cursor_type not in _FIXED_WIDTH:
        return None  # a string has no predecessor: the watermark waits until the open task is done
    number = int.from_bytes(derived.first_open, "big")
    return (number - 1).to_bytes(len(derived.first_open), "big") if number > 0 else None
