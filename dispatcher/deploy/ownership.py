"""One DAG owns a dataset: whoever else would produce it is refused."""

from dispatcher.db.rows import Connection
from dispatcher.deploy import store
from dispatcher.deploy.deployable import Deployable
from kernel.errors import TraceError
from traceapi.types.v1.errors_pb2 import ErrorReason


async def require_owned(connection: Connection, deployable: Deployable) -> None:
    """No other DAG owns a dataset that this one produces, and none is spelled in another way. Raises DATASET_OWNED."""
    owners = await store.dataset_owners(connection, [name.casefold() for name in deployable.dataset_fingerprints])
    by_folded = {owner.folded_id: owner for owner in owners}
    for dataset_id in sorted(deployable.dataset_fingerprints):
        owner = by_folded.get(dataset_id.casefold())
        if owner is not None and (owner.dag, owner.dataset_id) != (deployable.name, dataset_id):
            raise TraceError(
                ErrorReason.ERROR_REASON_DATASET_OWNED,
                f"dataset {dataset_id} is taken by {owner.dataset_id} of DAG {owner.dag}",
                metadata={"dataset_id": dataset_id},
            )
