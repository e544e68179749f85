"""Rollback: a version that was active before takes the active one's place, in one transaction, as a cutover does.

What it missed meanwhile is replayed to it then. Rows are counted before the locks, and under them it is asked whether
what was counted is still there.
"""

from dataclasses import dataclass

from dispatcher.audit.entries import Action
from dispatcher.datasets.names import no_dag
from dispatcher.db.pool import Pool, transaction
from dispatcher.db.rows import Connection
from dispatcher.deploy import answers, cutover, following, stages, store
from dispatcher.deploy.stages import Standing
from dispatcher.deploy.store import VersionRow
from kernel.crash import crash
from kernel.errors import TraceError
from traceapi.types.v1.errors_pb2 import ErrorReason


@dataclass(frozen=True, slots=True)
class Rollback:
    """A call for one. `to_version` None is the version that was active before the active one."""

    dag: str
    to_version: int | None
    request_id: str
    actor: str


async def roll_back(pool: Pool, call: Rollback) -> VersionRow:
    """Restores a version that was active before. A build that is under way is aborted: what it follows on is gone.

    Raises DAG_NOT_FOUND, DEPLOYMENT_NOT_FOUND where there is no such version, DEPLOYMENT_FINAL where it never was
    active or a part of it was collected, REQUEST_ID_REUSED.
    """
    async with transaction(pool) as connection:
        if (answered := await answers.answered_rollback(connection, call.request_id)) is not None:
            return _same_call(call, answered)
        target, active = await _target(connection, call)
        staged = await _staged(connection, call.dag)
        # What versions have never changes: this need not be asked while the acceptance of events waits.
        await stages.require_switchable(connection, target.dag_version_id, active.dag_version_id, given_up=staged)
        standing = await stages.own_versions(connection, call.dag)
        again, _ = await _target(connection, call)
        _require_still(standing, active.dag_version_id, staged, moved=again.dag_version_id != target.dag_version_id)
        restored = target
        if target.dag_version_id != active.dag_version_id:
            restored = await _restore(connection, standing, target, call.actor)
        elif standing.staged_version_id is not None:
            await stages.stop_acceptance(connection, call.dag)
            await cutover.retire(connection, standing, call.actor)
            await cutover.record_switch(connection, Action.ROLL_BACK, call.actor, standing, restored)
        if not await answers.answer_rollback(
            connection, call.request_id, restored.dag_version_id, active.dag_version_id, call.actor
        ):
            raise TraceError(
                ErrorReason.ERROR_REASON_REQUEST_ID_REUSED, f"request {call.request_id} was another call's meanwhile"
            )
        crash("rollback.written")
    crash("rollback.committed")
    return restored


async def _staged(connection: Connection, dag: str) -> str | None:
    version = await store.staged_version(connection, dag)
    return version.dag_version_id if version is not None else None


def _require_still(standing: Standing, active: str | None, staged: str | None, *, moved: bool = False) -> None:
    """What was counted before the locks is what there is under them. Raises UNAVAILABLE."""
    if moved or (standing.active_version_id, standing.staged_version_id) != (active, staged):
        raise TraceError(
            ErrorReason.ERROR_REASON_UNAVAILABLE,
            f"another version of {standing.dag} became active or is being built meanwhile",
            retry_after=stages.RETRY_AFTER,
        )


async def _restore(connection: Connection, standing: Standing, target: VersionRow, actor: str) -> VersionRow:
    await cutover.stop_staged(connection, standing, actor)
    await cutover.switch_jobs(connection, standing, target.dag_version_id, left="rolled_back", actor=actor)
    await stages.stop_acceptance(connection, target.dag, target.dag_version_id)
    await cutover.end_staged(connection, standing)
    await following.require_read(connection, target.dag, target.dag_version_id)
    await following.bind_version(connection, target.dag, target.dag_version_id)
    restored = await cutover.activate(connection, standing, target.dag_version_id, left="rolled_back")
    await stages.subscribe(connection, target.dag_version_id, standing.active_version_id)
    await cutover.record_switch(connection, Action.ROLL_BACK, actor, standing, restored)
    return restored


async def _target(connection: Connection, call: Rollback) -> tuple[VersionRow, VersionRow]:
    """The version to restore, and the one that is active."""
    active = await store.active_version(connection, call.dag)
    if active is None:
        raise await no_dag(connection, call.dag)
    if call.to_version is None:
        previous = await stages.previous_version(connection, call.dag, active.dag_version_id)
        target = await store.get_version(connection, previous) if previous is not None else None
        missing = f"no version of {call.dag} was active before version {active.version}"
    else:
        target = await stages.version_by_number(connection, call.dag, call.to_version)
        missing = f"{call.dag} has no version {call.to_version}"
    if target is None:
        raise TraceError(ErrorReason.ERROR_REASON_DEPLOYMENT_NOT_FOUND, missing, metadata={"dag": call.dag})
    if target.active_at is None:
        raise TraceError(
            ErrorReason.ERROR_REASON_DEPLOYMENT_FINAL,
            f"version {target.version} of {call.dag} was never active: deploy its document instead",
            metadata={"dag": call.dag, "version": str(target.version), "state": target.state},
        )
    if await stages.collected(connection, target.dag_version_id):
        raise TraceError(
            ErrorReason.ERROR_REASON_DEPLOYMENT_FINAL,
            f"a part of what version {target.version} of {call.dag} served was collected: deploy its document again,"
            " which builds it anew",
            metadata={"dag": call.dag, "version": str(target.version), "state": target.state},
        )
    return target, active


def _same_call(call: Rollback, answered: VersionRow) -> VersionRow:
    if answered.dag == call.dag and call.to_version in (None, answered.version):
        return answered
    raise TraceError(
        ErrorReason.ERROR_REASON_REQUEST_ID_REUSED,
        f"request {call.request_id}: it restored version {answered.version} of {answered.dag}",
    )
