"""Deploying a DAG version: it is written where nobody sees it, and becomes true in one transaction.

1. *Begun*: a row in the state `building`, after what is known to refuse it has been asked.
2. *Written* (`building.py`): job versions, dataset versions, settings and bindings, a page a transaction.
3. *Staged*: one transaction, under the exclusive locks of its own DAG and of the DAGs whose datasets it reads, so that
   no event of theirs is accepted between the moment that the heads are read and the moment that the subscriptions are
   seen. It asks again what may have changed since it was begun. Its own jobs may run now; `dag/size.py` bounds what
   a first version writes, `require_switchable` what a change does.
4. *Active*: in the same transaction where nothing was served before or no job is its own; else when it has caught up
   (`cutover.py`). What a removed DAG served last counts: it is read until another version takes its place.
5. *Cleared*: what deploys that went no further left behind.

A deploy may end anywhere, with its process or its connection; a build is never continued. The same call begins another
one, which finds the job versions that are there. Of several builds of one DAG the first to be staged wins, and the
others answer what it made of them. So nobody has to know whether another's build is alive.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from dispatcher.audit import store as audit
from dispatcher.audit.entries import Action, Entry
from dispatcher.db.pool import Pool, transaction
from dispatcher.db.rows import Connection
from dispatcher.deploy import answers, following, halting, stages, store
from dispatcher.deploy.building import Build, Overtaken, clear_leftovers, own_build, write_version
from dispatcher.deploy.composition import dataset_rows
from dispatcher.deploy.cutover import activate, deployed, switch_jobs
from dispatcher.deploy.deployable import Deployable
from dispatcher.deploy.ownership import require_owned
from dispatcher.deploy.removing import finish
from dispatcher.deploy.store import VersionRow
from dispatcher.deploy.versions import Identities
from dispatcher.deploy.writes import write
from kernel.crash import crash
from kernel.errors import TraceError
from traceapi.types.v1.errors_pb2 import ErrorReason


@dataclass(frozen=True, slots=True)
class Call:
    """Who deploys what. The same `request_id` is the same call again."""

    deployable: Deployable
    request_id: str
    actor: str
    hold: bool = False
    base: str | None = None
    """The version that must be active, where the call says so: empty for none."""
    plan_id: str | None = None
    """The plan that is deployed."""
    taken_over_jobs: Sequence[str] = ()
    """Jobs whose versions the plan takes over as they are, though their `execution_strategy` is another one."""


@dataclass(frozen=True, slots=True)
class Deployed:
    """The version that the call is answered with, and whether it was there before."""

    version: VersionRow
    unchanged: bool


async def deploy(pool: Pool, call: Call, new_id: Callable[[], str]) -> Deployed:
    """Raises DEPLOYMENT_IN_PROGRESS, DATASET_OWNED, DATASETS_READ, REQUEST_ID_REUSED, BASE_MOVED, and UNAVAILABLE where
    a dataset that it reads moved.

    Whatever it raises, what was active is active; what was written is found or cleared by a later call.
    """
    deployed = await _deploy(pool, call, new_id)
    await clear_leftovers(pool, call.deployable.name)
    return deployed


async def _deploy(pool: Pool, call: Call, new_id: Callable[[], str]) -> Deployed:
    while True:
        await finish(pool, call.deployable.name)  # what was begun of its removal, so that its jobs are whole again
        try:
            begun = await _begin(pool, call, new_id)
            if isinstance(begun, Deployed):
                return begun
            identities = await write_version(pool, begun, new_id)
            return Deployed(await _stage(pool, call, begun, identities), unchanged=False)
        except Overtaken:
            continue  # something is active or staged now, which answers this call; or it was removed


async def _begin(pool: Pool, call: Call, new_id: Callable[[], str]) -> Build | Deployed:
    """What was answered before, or a version to build; a refusal writes nothing."""
    deployable = call.deployable
    async with transaction(pool) as connection:
        answer = await _answer(connection, call, owned=False)
        if answer is not None:
            return Deployed(answer, unchanged=True)
        await require_owned(connection, deployable)
        await store.insert_dag(connection, deployable.name, call.actor)
        await store.own_dag(connection, deployable.name)
        if (answer := await _answer(connection, call, owned=True)) is not None:  # another one came first
            return Deployed(answer, unchanged=True)
        active = await store.active_version(connection, deployable.name)
        build = Build(new_id(), deployable, base=active.dag_version_id if active else None, actor=call.actor)
        _require_base_of_call(call, build)
        await store.begin_version(
            connection,
            deployable.name,
            build.dag_version_id,
            deployable.spec,
            deployable.digest,
            actor=call.actor,
            plan_id=call.plan_id,
        )
        return build


async def _answer(connection: Connection, call: Call, *, owned: bool) -> VersionRow | None:
    """The version that answers the call without deploying: the one of the same request, or the one of the same document
    that is being built or, where none is, active. A build is put on hold under the row of its DAG: `owned`. Else it
    could take over meanwhile, and the audit would say that it was held after that."""
    answered = await _answered(connection, call)
    if answered is not None:
        return answered
    staged = await store.staged_version(connection, call.deployable.name)
    if staged is not None and staged.spec_digest != call.deployable.digest:
        raise TraceError(
            ErrorReason.ERROR_REASON_DEPLOYMENT_IN_PROGRESS,
            f"version {staged.version} of {staged.dag} is being built",
            metadata={"dag": staged.dag, "version": str(staged.version), "deployment_id": staged.dag_version_id},
        )
    present = staged or await store.active_version(connection, call.deployable.name)
    if present is None or present.spec_digest != call.deployable.digest:
        return None
    if staged is not None and call.hold:
        if not owned:
            return None
        if await stages.hold_cutover(connection, staged.dag_version_id):
            await halting.end_halt(connection, staged.dag_version_id, staged.dag_version_id)
            entry = Entry(Action.HOLD, call.actor, staged.dag, [staged.dag], plan_id=call.plan_id)
            await audit.record(connection, replace(entry, to_version_id=staged.dag_version_id))
    await _note_answer(connection, call, present)
    return present


async def _stage(pool: Pool, call: Call, build: Build, identities: Identities) -> VersionRow:
    """The one transaction in which its jobs may run. It is active at once where there is nothing to wait for."""
    deployable = call.deployable
    async with transaction(pool) as connection:
        standing = await stages.own(connection, deployable.name, build.dag_version_id)
        await own_build(connection, build)
        if standing.ending:  # removed again meanwhile: first all that it had is stopped
            raise Overtaken
        await _require_base(connection, build)
        await _require_unmoved(connection, deployable)
        await _require_unread(connection, deployable)
        await write(connection, dataset_rows(deployable))
        await require_owned(connection, deployable)
        if build.base is not None:  # of a first version the document was asked
            await stages.require_switchable(connection, build.dag_version_id, build.base)
        former = build.base or standing.removed_version_id  # it is read until the new version takes its place
        at_once = not call.hold and (
            former is None or not await stages.own_jobs(connection, build.dag_version_id, former)
        )
        if not at_once:
            await stages.start_jobs(connection, build.dag_version_id, build.base, "staged", call.actor)
        await stages.subscribe(connection, build.dag_version_id, build.base)
        await stages.start_sources(connection, build.dag_version_id)
        await stages.stage(connection, deployable.name, build.dag_version_id, build.base, hold=call.hold)
        if at_once:
            await stages.unstage(connection, deployable.name)
            await switch_jobs(connection, standing, build.dag_version_id, actor=call.actor)
            version = await activate(connection, standing, build.dag_version_id)
        else:
            version = await deployed(connection, build.dag_version_id)
        await _record(connection, call, build, version)
        await _note_answer(connection, call, version)
        crash("deploy.written")
    crash("deploy.committed")
    return version


async def _record(connection: Connection, call: Call, build: Build, version: VersionRow) -> None:
    details = {
        "version": version.version,
        "deploy_number": version.deploy_number,
        "base_version_id": build.base,
        "hold": call.hold,
        "taken_over_jobs": list(call.taken_over_jobs),
        "spec_sha256": version.spec_digest.hex(),
    }
    entry = Entry(Action.DEPLOY, call.actor, version.dag, [version.dag], details, call.plan_id)
    await audit.record(connection, replace(entry, from_version_id=build.base, to_version_id=version.dag_version_id))


def _require_base_of_call(call: Call, build: Build) -> None:
    """What the call was planned on is active. Raises BASE_MOVED."""
    if call.base is not None and (call.base or None) != build.base:
        raise TraceError(
            ErrorReason.ERROR_REASON_BASE_MOVED,
            f"another version of {call.deployable.name} is active than the plan starts from: plan again",
            metadata={"dag": call.deployable.name},
        )


async def _require_unread(connection: Connection, deployable: Deployable) -> None:
    """No other DAG reads a dataset that the version leaves out. Raises DATASETS_READ."""
    left_out = [
        reader
        for reader in await following.readers(connection, deployable.name)
        if reader.dataset_id not in deployable.dataset_fingerprints
    ]
    if left_out:
        raise TraceError(
            ErrorReason.ERROR_REASON_DATASETS_READ,
            f"the document has no {left_out[0].dataset_id} any more, which DAG {left_out[0].dag} reads",
            metadata={"readers": ",".join(sorted({reader.dag for reader in left_out}))},
        )


async def _require_base(connection: Connection, build: Build) -> None:
    """What was active when the build was begun still is. The caller owns the DAG. Raises Overtaken."""
    active = await store.active_version(connection, build.deployable.name)
    if (active.dag_version_id if active else None) != build.base:
        raise Overtaken


async def _require_unmoved(connection: Connection, deployable: Deployable) -> None:
    """What it reads of other DAGs is served by the versions that it was fingerprinted with and bound to."""
    if moved := await store.moved_datasets(connection, deployable.foreign):
        raise TraceError(
            ErrorReason.ERROR_REASON_UNAVAILABLE,
            f"another version of {', '.join(moved[:10])} is served since {deployable.name} was checked; deploy again",
            retry_after=stages.RETRY_AFTER,
        )


async def _answered(connection: Connection, call: Call) -> VersionRow | None:
    """What the request was answered with. Raises REQUEST_ID_REUSED where that was for another document."""
    answered = await answers.answered_deploy(connection, call.request_id)
    if answered is None or (answered.dag, answered.spec_digest) == (call.deployable.name, call.deployable.digest):
        return answered
    raise TraceError(
        ErrorReason.ERROR_REASON_REQUEST_ID_REUSED,
        f"request {call.request_id}: it deployed version {answered.version} of {answered.dag}, with another document",
    )


async def _note_answer(connection: Connection, call: Call, version: VersionRow) -> None:
    """So that the call can be repeated. Raises REQUEST_ID_REUSED where another one took its id meanwhile."""
    if not await answers.answer_deploy(connection, call.request_id, version.dag_version_id, call.actor):
        await _answered(connection, call)
