"""From resolved datasets to the relations of a cell's job.

Each names its columns, as far as they are known, in the order of its dataset version: what `*` means is then the same
with files and without, with a WHERE clause that leaves some out, and before any are looked for.
"""

from collections.abc import Callable, Sequence

import pyarrow as pa

from kernel.column_types import parse_column_type
from kernel.errors import TraceError
from queryd.columns import known_columns
from queryd.engine.messages import Relation
from queryd.resolve import ResolvedDataset
from traceapi.types.v1.errors_pb2 import ErrorReason


def relations(
    datasets: Sequence[ResolvedDataset], place: Callable[[str], str]
) -> tuple[tuple[Relation, ...], list[pa.Table]]:
    """The relations, and the tables that they name by index. `place` answers by which path a
    cell reads the object of a key."""
    made: list[Relation] = []
    tables: list[pa.Table] = []
    for dataset in datasets:
        names = (dataset.dataset_id, *dataset.spellings)
        if dataset.virtual_sql:
            made.append(Relation(names, columns=_of_virtual(dataset), sql=dataset.virtual_sql))
        elif dataset.scopes is not None:
            made.append(Relation(names, table=len(tables)))
            tables.append(dataset.scopes)
        elif dataset.artifacts:
            paths = tuple(place(artifact.key) for artifact in dataset.artifacts)
            made.append(Relation(names, paths=paths, columns=_columns(dataset)))
        else:
            made.append(Relation(names, columns=_of_empty(dataset)))
    return tuple(made), tables


def _columns(dataset: ResolvedDataset) -> tuple[tuple[str, str], ...]:
    columns = known_columns(dataset.pinned.dataset)
    return tuple((name, parse_column_type(word).duckdb) for name, word in columns.items())


def _of_virtual(dataset: ResolvedDataset) -> tuple[tuple[str, str], ...]:
    """Those of a virtual dataset that is older than the record of an order are as its SQL gives them."""
    return _columns(dataset) if dataset.pinned.dataset.spec.column_order else ()


def _of_empty(dataset: ResolvedDataset) -> tuple[tuple[str, str], ...]:
    columns = _columns(dataset)
    if not columns:
        message = f'dataset "{dataset.dataset_id}" has no rows yet and declares no columns: query it once it has some'
        raise TraceError(ErrorReason.ERROR_REASON_QUERY_FAILED, message)
    return columns
