"""Cutover and abort, and what they share with a rollback: each is one transaction, under the exclusive locks of the
DAGs whose events are concerned.

What moves is one row of the DAG, which moves all of its pointers and the scheduler, and one row for each job version
and subscription that only one side has. No task is touched: guards, releases and claims ask the job version's row, so
queued tasks of the other side wait where they are, running ones hear *cancel* and are fenced by the epoch. Jobs that
both versions have go on undisturbed.
"""

from collections.abc import Mapping
from dataclasses import replace

from dispatcher.audit import store as audit
from dispatcher.audit.entries import Action, Entry
from dispatcher.db.pool import Pool, transaction
from dispatcher.db.rows import Connection
from dispatcher.deploy import barrier, following, progress, stages, store
from dispatcher.deploy.readiness import NO_WAIVER, Lack, Waiver, lack
from dispatcher.deploy.stages import Standing
from dispatcher.deploy.store import VersionRow
from kernel.crash import crash
from kernel.errors import TraceError
from traceapi.types.v1.errors_pb2 import ErrorReason

HALT = barrier.LEAST_HALT
"""How long releases of jobs that are about to go may be halted, so that those that take their place catch up."""
DISPATCHER = "dispatcher"
"""The actor of what happens by itself."""


class Held(Exception):
    """It was put on hold after it was looked at: it does not take over by itself."""


async def find_lack(connection: Connection, dag_version_id: str, *, locked: bool = False) -> Lack:
    """What a staged version lacks. Decides only under the DAG's locks, `locked`: there it reads no tasks to tell which
    are from before the barrier, but asks whether it is known that it was passed (`barrier.note_passed`)."""
    return lack(
        await progress.staged_jobs(connection, dag_version_id, locked=locked),
        await progress.staged_watermarks(connection, dag_version_id),
        await barrier.get(connection, dag_version_id),
    )


async def switch_jobs(
    connection: Connection, standing: Standing, to: str, *, left: str = "replaced", actor: str
) -> None:
    """The first part of the one step, which is half of its rows: what only one version has may run, or may not, once it
    is committed. Acceptance need not wait meanwhile. `left` is the state of what was active: replaced or
    rolled_back."""
    former = standing.active_version_id
    if former is not None:
        await stages.stop_jobs(connection, former, to, "superseded" if left == "replaced" else left, actor)
    await stages.start_jobs(connection, to, former, "running", actor)


async def activate(connection: Connection, standing: Standing, to: str, *, left: str = "replaced") -> VersionRow:
    """The second part, while acceptance waits: another version is active."""
    former = standing.active_version_id
    if former is not None:
        await stages.unsubscribe(connection, former, to)
        await stages.set_state(connection, former, left)
    version = await store.activate(connection, standing.dag, to)
    await following.follow_pointers(connection, standing.dag)
    return version


async def cut_over(pool: Pool, dag_version_id: str, actor: str, waiver: Waiver = NO_WAIVER) -> VersionRow | None:
    """None where it lacks something (`not_caught_up`). Raises DEPLOYMENT_NOT_FOUND, DEPLOYMENT_FINAL where it is not
    being built, and TOO_MANY_ROWS where too many jobs of other DAGs follow; Held where nobody asked and it waits for a
    person.

    It is for versions that a look without locks found ready: acceptance waits while they are looked at again.
    """
    try:
        return await _cut_over(pool, dag_version_id, actor, waiver)
    except _FoundLacking:
        return None


class _FoundLacking(Exception):  # noqa: N818 - no error: what was written already is undone
    """Under the locks."""


async def _cut_over(pool: Pool, dag_version_id: str, actor: str, waiver: Waiver) -> VersionRow:
    async with transaction(pool) as connection:
        version = await require_possible(connection, dag_version_id)
        standing = await stages.own_versions(connection, version.dag)
        if standing.staged_version_id != dag_version_id:
            raise _final(await deployed(connection, dag_version_id))
        by_itself = actor == DISPATCHER  # then it is done for whoever deployed it
        if by_itself and await stages.waits_for_person(connection, dag_version_id):
            raise Held
        await switch_jobs(connection, standing, dag_version_id, actor=actor)
        await stages.stop_acceptance(connection, version.dag)
        await stages.lock_watermarks(connection, version.dag)
        whole = await find_lack(connection, dag_version_id, locked=True)
        lacking = whole.but(waiver)
        if not lacking.allows(waiver):
            raise _FoundLacking
        await stages.unstage(connection, version.dag)
        active = await activate(connection, standing, dag_version_id)
        details = {
            "by_itself": by_itself,
            "watermarks_may_go_back": bool(lacking.behind),
            "cursors_may_differ": bool(whole.incomparable),
            "underway": bool(whole.underway),
            "unwaited": not lacking.nothing and bool(lacking.last or lacking.unfinished or lacking.awaited),
        }
        await record_switch(
            connection, Action.CUT_OVER, version.actor if by_itself else actor, standing, active, details
        )
        crash("cutover.written")
    crash("cutover.committed")
    return active


async def require_possible(connection: Connection, dag_version_id: str) -> VersionRow:
    """Where it is not, whatever it lacks: raises DEPLOYMENT_NOT_FOUND, DEPLOYMENT_FINAL, TOO_MANY_ROWS."""
    version = await require_building(connection, dag_version_id)
    await stages.require_takeover(connection, version.dag, dag_version_id)
    return version


async def require_building(connection: Connection, dag_version_id: str) -> VersionRow:
    """Raises DEPLOYMENT_NOT_FOUND, DEPLOYMENT_FINAL."""
    version = await deployed(connection, dag_version_id)
    if not version.being_built:
        raise _final(version)
    return version


async def not_caught_up(pool: Pool, dag_version_id: str, waiver: Waiver = NO_WAIVER) -> TraceError:
    """With what it lacks now. That is read where no locks are held: it may take a while. Raises DEPLOYMENT_FINAL where
    it is not being built by then: what was seen to be missing may be of the moment at which it was given up."""
    async with transaction(pool) as connection:
        lacking = (await find_lack(connection, dag_version_id)).but(waiver)
        version = await require_building(connection, dag_version_id)
    return TraceError(
        ErrorReason.ERROR_REASON_NOT_CAUGHT_UP,
        f"version {version.version} of {version.dag} cannot take over yet: "
        + (lacking.words() or "it lacked what came a moment ago"),
        metadata={"dag": version.dag, "version": str(version.version)},
    )


async def abort(pool: Pool, dag_version_id: str, actor: str) -> VersionRow:
    """The build is retired, and kept for reuse; what is active stays. Raises DEPLOYMENT_NOT_FOUND, DEPLOYMENT_FINAL."""
    async with transaction(pool) as connection:
        version = await deployed(connection, dag_version_id)
        standing = await stages.own(connection, version.dag)
        if standing.staged_version_id != dag_version_id:
            raise _final(await deployed(connection, dag_version_id))
        await retire(connection, standing, actor)
        entry = Entry(Action.ABORT, actor, version.dag, [version.dag], {"version": version.version})
        await audit.record(connection, replace(entry, from_version_id=dag_version_id))
        crash("abort.written")
    async with transaction(pool) as connection:
        return await store.get_version(connection, dag_version_id) or version


async def retire(connection: Connection, standing: Standing, actor: str) -> None:
    """What is staged ends. The caller owns the DAG."""
    await stop_staged(connection, standing, actor)
    await end_staged(connection, standing)


async def stop_staged(connection: Connection, standing: Standing, actor: str) -> None:
    """The part of it for which acceptance need not wait."""
    if standing.staged_version_id is not None:
        await stages.stop_jobs(connection, standing.staged_version_id, standing.active_version_id, "retired", actor)


async def end_staged(connection: Connection, standing: Standing) -> None:
    """The other part."""
    staged = standing.staged_version_id
    if staged is None:
        return
    await stages.unsubscribe(connection, staged, standing.active_version_id)
    await stages.set_state(connection, staged, "aborted")
    await stages.unstage(connection, standing.dag)
    await stages.free_datasets(connection, standing.dag, staged)


async def deployed(connection: Connection, dag_version_id: str) -> VersionRow:
    """Raises DEPLOYMENT_NOT_FOUND."""
    version = await store.get_version(connection, dag_version_id)
    if version is None:
        raise TraceError(ErrorReason.ERROR_REASON_DEPLOYMENT_NOT_FOUND, f"no deployment has the id {dag_version_id}")
    return version


def _final(version: VersionRow) -> TraceError:
    return TraceError(
        ErrorReason.ERROR_REASON_DEPLOYMENT_FINAL,
        f"version {version.version} of {version.dag} is {version.state.replace('_', ' ')}, not being built",
        metadata={"dag": version.dag, "version": str(version.version), "state": version.state},
    )


async def record_switch(
    connection: Connection,
    action: Action,
    actor: str,
    standing: Standing,
    version: VersionRow,
    details: Mapping[str, bool] | None = None,
) -> None:
    """The version took the place of what was active. It names what was given up by it."""
    facts = {
        "version": version.version,
        "deploy_number": version.deploy_number,
        "former_version_id": standing.active_version_id,
        "aborted_version_id": standing.staged_version_id if action is Action.ROLL_BACK else None,
        **(details or {}),
    }
    entry = Entry(action, actor, version.dag, [version.dag], facts)
    await audit.record(
        connection, replace(entry, from_version_id=standing.active_version_id, to_version_id=version.dag_version_id)
    )
