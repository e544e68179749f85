"""From resolved datasets to the relations of a cell's job, and the care for the files between the two."""

from collections.abc import Sequence

import pyarrow as pa

from kernel.artifacts import ArtifactStore
from kernel.column_types import parse_column_type
from kernel.errors import TraceError
from queryd.engine.messages import Relation
from queryd.resolve import ResolvedDataset
from traceapi.types.v1.errors_pb2 import ErrorReason

_MOST_CHECKED_BYTES = 1 << 30


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


def check_files(datasets: Sequence[ResolvedDataset], store: ArtifactStore) -> None:
    """ARTIFACT_LOST where a pinned file is not there, or has another size."""
    for dataset in datasets:
        for artifact in dataset.artifacts:
            stored = store.stat(artifact.key, digest=False)
            if stored is None or stored.size_bytes != artifact.size_bytes:
                what = "is not in the store" if stored is None else "has another size than was recorded"
                raise _lost(dataset, artifact.key, what)


def check_contents(datasets: Sequence[ResolvedDataset], store: ArtifactStore, complaint: str | None) -> None:
    """ARTIFACT_LOST where that explains an engine's complaint: a file is gone, or has other content than was recorded.

    Looked at are the files that the complaint names, or, without one, as many as can be read in seconds.
    """
    check_files(datasets, store)
    left = _MOST_CHECKED_BYTES
    for dataset in datasets:
        for artifact in dataset.artifacts:
            if left < 0 or (complaint is not None and artifact.key not in complaint):
                continue
            left -= artifact.size_bytes
            stored = store.stat(artifact.key, digest=True)
            if stored is None or stored.sha256 != artifact.sha256:
                raise _lost(dataset, artifact.key, "does not have the content that was recorded")


def _declared(dataset: ResolvedDataset) -> tuple[tuple[str, str], ...]:
    """The columns of a dataset without rows, declared or frozen earlier; by name, for the contract gives no order."""
    declaration = dataset.pinned.dataset
    schema = declaration.spec.schema or declaration.served_version.schema
    if not schema:
        message = f'dataset "{dataset.dataset_id}" has no rows yet and declares no columns: query it once it has some'
        raise TraceError(ErrorReason.ERROR_REASON_QUERY_FAILED, message)
    return tuple((name, parse_column_type(schema[name]).duckdb) for name in sorted(schema))


def _lost(dataset: ResolvedDataset, key: str, what: str) -> TraceError:
    message = f'the file {key} of dataset "{dataset.dataset_id}" {what}'
    metadata = {"dataset_id": dataset.dataset_id, "key": key}
    return TraceError(ErrorReason.ERROR_REASON_ARTIFACT_LOST, message, metadata=metadata)
