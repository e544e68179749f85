"""Pins: a consistent state of several datasets, fixed at one moment. Owns its transaction's steps, not its commit.

With the pin its files are found, where they are few: a reader of little is answered in one call. They are what
ResolveDatasets would answer, by the same statements. To be called in a pipeline of statements that are planned once
(dispatcher/db/pipeline.py).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from dispatcher.datasets import store
from dispatcher.datasets.manifest import Manifest, Page
from dispatcher.datasets.names import no_dataset
from dispatcher.datasets.rows import (
    Bounds,
    PinnedRow,
)
from dispatcher.db.pipeline import plan_each, together
from dispatcher.db.rows import Connection
from kernel.dataset_sql import folded
from kernel.errors import TraceError
from traceapi.types.v1.dag_pb2 import OutputSpec, Storage
from traceapi.types.v1.errors_pb2 import ErrorReason

MOST_FILES = 100
"""Of one dataset, or scopes of one without files, that are found with the pin."""
MOST_DATASETS = 10
"""Whose files are found with the pin."""


@dataclass(frozen=True, slots=True)
class Pinned:
    """`rows` by dataset; `names` says which dataset a name of the request means. `files` by dataset are all that are
    visible within the bounds; None where they are not wanted, or not few."""

    pin_id: str
    deploy_number: int
    expires_at: datetime
    names: Mapping[str, str]
    rows: Mapping[str, PinnedRow]
    files: Mapping[str, Page] | None


@dataclass(frozen=True, slots=True)
class ColumnBounds:
    """Within which the files are wanted, if this column (folded) is the dataset's cursor, and of this type."""

    column: str
    cursor_type: int
    bounds: Bounds


@dataclass(frozen=True, slots=True)
class GivenPin:
    """A pin that an earlier answer carried: numbers by dataset version."""

    deploy_number: int
    numbers: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class PinWish:
    """What to pin: now, at a deploy number, or as given before. `bounds` by name are those of the files wanted with
    the pin; None where none are wanted."""

    names: Sequence[str]
    lease: timedelta
    deploy_number: int | None = None
    given: GivenPin | None = None
    bounds: Mapping[str, Sequence[ColumnBounds]] | None = None


async def pin_datasets(connection: Connection, wish: PinWish, actor: str, pin_id: str) -> Pinned:
    """Raises DATASET_NOT_FOUND with the nearest id, PIN_COLLECTED."""
    if wish.given is not None:
        names = await _resolve_names(connection, wish.names)
        rows = await _again(connection, wish.given, names)
        deploy_number = wish.given.deploy_number
    elif wish.deploy_number is not None:
        names = await _resolve_names(connection, wish.names)
        rows = await _served_at(connection, wish.deploy_number, names)
        deploy_number = wish.deploy_number
    else:
        rows = {row.dataset_id: row for row in await store.pin_now(connection, wish.names)}
        names = await _among(connection, rows, wish.names)
        deploy_number = next(iter(rows.values())).deploy_number
    pins = [(row.dataset_id, row.dataset_version_id, row.number) for row in rows.values()]
    await plan_each(connection)  # how files are best found depends on how many there are
    # Of a version that is held no file has been taken before: so the files need not be found after it.
    (expires_at, held), files = await together(
        store.insert_pin(connection, pin_id, actor, deploy_number, wish.lease, pins),
        _few_files(connection, wish, names, rows),
    )
    if held < len(pins):
        raise _collected("a version")
    return Pinned(pin_id, deploy_number, expires_at, names, rows, files)


def is_stored(row: PinnedRow) -> bool:
    """Whether it has files; others have scopes, or are virtual."""
    return not row.virtual_sql and OutputSpec.FromString(row.spec).storage != Storage.STORAGE_NONE


async def _few_files(
    connection: Connection, wish: PinWish, names: Mapping[str, str], rows: Mapping[str, PinnedRow]
) -> dict[str, Page] | None:
    """Of all datasets, or of none: who has to ask for some can ask for all, with what virtual ones demand too."""
    if wish.bounds is None or len(rows) > MOST_DATASETS or any(row.virtual_sql for row in rows.values()):
        return None
    spellings = {dataset_id: name for name, dataset_id in names.items()}
    if len(spellings) < len(wish.names):
        return None  # of a dataset under two names what is demanded under both counts
    pages = await together(
        *[
            Manifest(
                row.dataset_version_id,
                row.number,
                _fitting(wish.bounds.get(spellings.get(dataset_id, ""), ()), row),
                stored=is_stored(row),
            ).page(connection, limit=MOST_FILES + 1)
            for dataset_id, row in rows.items()
        ]
    )
    return dict(zip(rows, pages, strict=True)) if all(page.last for page in pages) else None


def _fitting(given: Sequence[ColumnBounds], row: PinnedRow) -> Bounds:
    column = folded(OutputSpec.FromString(row.spec).cursor.column)
    fitting = (item.bounds for item in given if (item.column, item.cursor_type) == (column, row.cursor_type))
    return next(fitting, Bounds())


async def _among(connection: Connection, rows: Iterable[str], names: Sequence[str]) -> dict[str, str]:
    """Dataset ids by the names that mean them."""
    found = {dataset_id.casefold(): dataset_id for dataset_id in rows}
    missing = [name for name in names if name.casefold() not in found]
    if missing:
        raise await no_dataset(connection, missing[0])
    return {name: found[name.casefold()] for name in names}


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
    return await _among(connection, spelled.values(), names)


async def _again(connection: Connection, given: GivenPin, names: Mapping[str, str]) -> dict[str, PinnedRow]:
    """The versions and numbers of an earlier pin. What it does not cover was not pinned then, or is collected."""
    found = await store.pinned(connection, given.numbers)
    rows = {row.dataset_id: replace(row, watermark=None) for row in found}  # how far it was then is not on record
    missing = sorted(set(names.values()) - rows.keys())
    if missing or len(rows) < len(given.numbers):
        raise _collected(", ".join(missing) or "a version")
    return rows


def _collected(what: str) -> TraceError:
    return TraceError(ErrorReason.ERROR_REASON_PIN_COLLECTED, f"the pin does not hold {what}, or it was collected")
