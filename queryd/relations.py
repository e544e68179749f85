"""From resolved datasets to the relations of a cell's job."""

from collections.abc import Sequence

import pyarrow as pa

from kernel.column_types import parse_column_type
from kernel.errors import TraceError
from queryd.engine.messages import Relation
from queryd.resolve import ResolvedDataset
from traceapi.types.v1.errors_pb2 import ErrorReason


def relations(datasets: Sequence[ResolvedDataset], root: str) -> tuple[tuple[Relation, ...], list[pa.Table]]:
    """The relations, and the tables that they name by index. `root` is where a cell sees the store."""
    made: list[Relation] = []
    tables: list[pa.Table] = []
    for dataset in datasets:
        names = (dataset.dataset_id, *dataset.spellings)
        if dataset.virtual_sql:
            made.append(Relation(names, sql=dataset.virtual_sql))
        elif dataset.scopes is not None:
            made.append(Relation(names, table=len(tables)))
            tables.append(dataset.scopes)
        elif dataset.artifacts:
            made.append(Relation(names, paths=tuple(f"{root}/{artifact.key}" for artifact in dataset.artifacts)))
        else:
            made.append(Relation(names, columns=_declared(dataset)))
    return tuple(made), tables


def _declared(dataset: ResolvedDataset) -> tuple[tuple[str, str], ...]:
    """The columns of a dataset without rows, declared or frozen earlier; by name, for the contract gives no order."""
    declaration = dataset.pinned.dataset
    schema = declaration.spec.schema or declaration.served_version.schema
    if not schema:
        message = f'dataset "{dataset.dataset_id}" has no rows yet and declares no columns: query it once it has some'
        raise TraceError(ErrorReason.ERROR_REASON_QUERY_FAILED, message)
    return tuple((name, parse_column_type(schema[name]).duckdb) for name in sorted(schema))
