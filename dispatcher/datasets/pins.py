"""Pins: a consistent state of several datasets, fixed at one moment. Owns its transaction's steps, not its commit."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from dispatcher.datasets import store
from dispatcher.datasets.names import no_dataset
from dispatcher.datasets.rows import (
    PinnedRow,
)
from dispatcher.db.rows import Connection
from kernel.errors import TraceError
from traceapi.types.v1.errors_pb2 import ErrorReason


@dataclass(frozen=True, slots=True)
class Pinned:
    """`rows` by dataset; `names` says which dataset a name of the request means."""

    pin_id: str
    deploy_number: int
    expires_at: datetime
    names: Mapping[str, str]
    rows: Mapping[str, PinnedRow]


@dataclass(frozen=True, slots=True)
class GivenPin:
    """A pin that an earlier answer carried: numbers by dataset version."""

    deploy_number: int
    numbers: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class PinWish:
    """What to pin: now, at a deploy number, or as given before."""

    names: Sequence[str]
    lease: timedelta
    deploy_number: int | None = None
    given: GivenPin | None = None


async def pin_datasets(connection: Connection, wish: PinWish, actor: str, pin_id: str) -> Pinned:
    """Raises DATASET_NOT_FOUND with the nearest id, PIN_COLLECTED."""
    names = await _resolve_names(connection, wish.names)
    if wish.given is not None:
        rows = await _again(connection, wish.given, names)
        deploy_number = wish.given.deploy_number
    elif wish.deploy_number is not None:
        rows = await _served_at(connection, wish.deploy_number, names)
        deploy_number = wish.deploy_number
    else:
        found = await store.pin_now(connection, sorted(set(names.values())))
        rows = {row.dataset_id: row for row in found}
        if unserved := sorted(set(names.values()) - rows.keys()):
            raise await no_dataset(connection, unserved[0])
        deploy_number = found[0].deploy_number
    pins = [(row.dataset_id, row.dataset_version_id, row.number) for row in rows.values()]
    expires_at, held = await store.insert_pin(connection, pin_id, actor, deploy_number, wish.lease, pins)
    if held < len(pins):
        raise _collected("a version")
    return Pinned(pin_id, deploy_number, expires_at, names, rows)


async def _served_at(connection: Connection, deploy_number: int, names: Mapping[str, str]) -> dict[str, PinnedRow]:
    latest = await store.latest_deploy(connection)
    if deploy_number > latest:  # what is served then is not known: it would be answered with what is served now
        message = f"there is no deploy {deploy_number} yet; the latest is {latest}"
        raise TraceError(ErrorReason.ERROR_REASON_PIN_COLLECTED, message)
    served = await store.served_at(connection, sorted(set(names.values())), deploy_number)
    rows = {row.dataset_id: row for row in await store.pinned(connection, served)}
    if missing := sorted(set(names.values()) - rows.keys()):
        message = f"{', '.join(missing)} was not served at deploy {deploy_number}, or what was served then is collected"
        raise TraceError(ErrorReason.ERROR_REASON_PIN_COLLECTED, message)
    if len(rows) < len(served):
        raise _collected("a version")
    return rows


async def _resolve_names(connection: Connection, names: Sequence[str]) -> dict[str, str]:
    """Names are dataset ids; SQL engines fold case, and ids are unique under that folding."""
    spelled = await store.spelled(connection, names)
    missing = [name for name in names if name.casefold() not in spelled]
    if missing:
        raise await no_dataset(connection, missing[0])
    return {name: spelled[name.casefold()] for name in names}


async def _again(connection: Connection, given: GivenPin, names: Mapping[str, str]) -> dict[str, PinnedRow]:
    """The versions and numbers of an earlier pin. What it does not cover was not pinned then, or is collected."""
    rows = {row.dataset_id: row for row in await store.pinned(connection, given.numbers)}
    missing = sorted(set(names.values()) - rows.keys())
    if missing or len(rows) < len(given.numbers):
        raise _collected(", ".join(missing) or "a version")
    return rows


def _collected(what: str) -> TraceError:
    return TraceError(ErrorReason.ERROR_REASON_PIN_COLLECTED, f"the pin does not hold {what}, or it was collected")
