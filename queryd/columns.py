"""The columns of a dataset, known before any of its rows: in one order, whatever is read of it and through whatever."""

from kernel.column_types import ordered_columns
from kernel.dataset_sql import scope_columns
from queryd.scopes import cursor_word
from traceapi.types.v1.dag_pb2 import Storage
from traceapi.types.v1.dataset_pb2 import Dataset


def known_columns(dataset: Dataset) -> dict[str, str]:
    """Name to type, in their order: declared, given by its SQL, or frozen by its first rows; those of its scopes where
    it keeps events only. Empty where nothing is known yet."""
    if dataset.spec.storage == Storage.STORAGE_NONE:
        return scope_columns(cursor_word(dataset.spec.cursor.type))
    known = dataset.spec if dataset.spec.schema else dataset.served_version
    return ordered_columns(known.schema, known.column_order)
