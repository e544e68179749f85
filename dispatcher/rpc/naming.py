"""What a request names, looked up as people write it. What is mistyped is refused, and never answered with nothing."""

from dispatcher.datasets import store as datasets_store
from dispatcher.datasets.names import no_dag, no_dataset, no_job
from dispatcher.datasets.rows import DatasetRow
from dispatcher.db.rows import Connection
from dispatcher.tasks import listing
from kernel.errors import TraceError
from kernel.scopes import ScopeKey, cursor_type_of, format_scope, scope_key
from traceapi.types.v1.errors_pb2 import ErrorReason
from traceapi.types.v1.scope_pb2 import CursorType, Scope

_EXAMPLES = {
    CursorType.CURSOR_TYPE_INT64: "such as 500000 or 500000..500099",
    CursorType.CURSOR_TYPE_TIMESTAMP: "such as 2024-05-01T12:00:00Z, or two with two dots between",
    CursorType.CURSOR_TYPE_STRING: "such as abc or abc..abd",
}


async def require_names(connection: Connection, dag: str, job: str = "") -> None:
    """Raises DAG_NOT_FOUND, JOB_NOT_FOUND; empty is no name."""
    unknown_dag, unknown_job = await listing.unknown_names(connection, dag or None, job or None)
    if unknown_dag:
        raise await no_dag(connection, dag)
    if unknown_job:
        raise await no_job(connection, dag, job)


async def named_dataset(connection: Connection, name: str) -> DatasetRow:
    """By its id, whatever the case. Raises DATASET_NOT_FOUND."""
    spelled = await datasets_store.spelled(connection, [name])
    dataset_id = spelled.get(name.casefold(), name)
    found = await datasets_store.list_datasets(connection, dataset_id=dataset_id)
    if not found:
        raise await no_dataset(connection, name)
    return found[0]


def scope_in(dataset: DatasetRow, scope: Scope) -> ScopeKey:
    """The scope's key. Raises SCOPE_MISMATCH for one of another type, whose key would be compared all the same."""
    key, stated = scope_key(scope), cursor_type_of(scope)
    if stated == dataset.cursor_type:
        return key
    if dataset.cursor_type == CursorType.CURSOR_TYPE_UNSPECIFIED:
        told = "has no cursor: its scopes are partition keys"
    else:
        cursor_type = CursorType.ValueType(dataset.cursor_type)
        name = CursorType.Name(cursor_type).removeprefix("CURSOR_TYPE_").lower()
        told = f"has a cursor of type {name}: its scopes are {_EXAMPLES[cursor_type]}"
    raise TraceError(
        ErrorReason.ERROR_REASON_SCOPE_MISMATCH,
        f"{format_scope(scope)!r} is no scope of {dataset.dataset_id}, which {told}",
        metadata={"dataset_id": dataset.dataset_id},
    )
