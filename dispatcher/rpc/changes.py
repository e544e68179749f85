"""ListDagChanges: the audit of one DAG."""

from dispatcher.audit import store as audit
from dispatcher.audit.entries import EntryRow
from dispatcher.audit.notes import note
from dispatcher.datasets.names import no_dag
from dispatcher.db.pool import Pool, transaction
from dispatcher.rpc import convert
from dispatcher.rpc.faults import translated
from dispatcher.rpc.paging import number_token, page_size
from traceapi.control.v1 import change_pb2 as pb

_ACTIONS = {name.removeprefix("AUDIT_ACTION_").lower(): value for name, value in pb.AuditAction.items()}


async def list_dag_changes(pool: Pool, request: pb.ListDagChangesRequest) -> pb.ListDagChangesResponse:
    """Raises DAG_NOT_FOUND where nothing was ever asked of a DAG of this name."""
    limit, before = page_size(request.page_size), number_token(request.page_token)
    with translated():
        async with transaction(pool) as connection:
            found = await audit.entries_of_dag(connection, request.dag, before, limit)
            if not found and before is None:
                raise await no_dag(connection, request.dag)
    token = str(found[-1].audit_id) if len(found) == limit else ""
    return pb.ListDagChangesResponse(changes=[_change(row) for row in found], next_page_token=token)


def _change(row: EntryRow) -> pb.DagChange:
    return pb.DagChange(
        audit_id=row.audit_id,
        time=convert.timestamp(row.at),
        action=_ACTIONS.get(row.action or "", pb.AUDIT_ACTION_UNSPECIFIED),
        method=row.method,
        actor=row.actor,
        outcome=pb.AuditOutcome.Value(f"AUDIT_OUTCOME_{row.outcome.upper()}"),
        reason=row.reason or "",
        plan_id=row.plan_id or "",
        from_version=row.from_version or 0,
        to_version=row.to_version or 0,
        task_count=row.task_count or 0,
        note=note(row),
        dags=row.dags,
    )
