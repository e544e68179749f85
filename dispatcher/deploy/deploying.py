"""Deploying a DAG version: it is written where nobody sees it, and becomes true in one transaction.

1. *Begun*: a row in the state `building`, after what is known to refuse it has been asked.
2. *Written* (`building.py`): job versions, dataset versions, settings and bindings, a page a transaction.
3. *Active*: one transaction, under the exclusive locks of its own DAG and of the DAGs whose datasets it reads, so that
   no event of theirs is accepted between the moment that the heads are read and the moment that the subscriptions are
   seen. It asks again what may have changed since it was begun. One row, the DAG's active version, moves all of its
   pointers; `dag/size.py` bounds the others.
4. *Cleared*: what deploys that went no further left behind.

A deploy may end anywhere, with its process or its connection; a build is never continued. The same call begins another
one, which finds the job versions that are there. Of several builds of one DAG the first to go active wins, and the
others answer what it made of them. So nobody has to know whether another's build is alive.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dispatcher.datasets import store as datasets_store
from dispatcher.db.pool import Pool, transaction
from dispatcher.db.rows import Connection
from dispatcher.deploy import store
from dispatcher.deploy.building import Build, Overtaken, clear_leftovers, hold, write_version
from dispatcher.deploy.composition import activation_rows
from dispatcher.deploy.deployable import Deployable
from dispatcher.deploy.store import VersionRow
from dispatcher.deploy.versions import Identities
from dispatcher.deploy.writes import write
from dispatcher.events.store import DAG_LOCK_CLASS
from kernel.errors import TraceError
from traceapi.types.v1.errors_pb2 import ErrorReason

RETRY_AFTER = 0.2
"""Seconds after which a deploy may be repeated whose inputs moved."""


@dataclass(frozen=True, slots=True)
class Call:
    """Who deploys what. The same `request_id` is the same call again."""

    deployable: Deployable
    request_id: str
    actor: str


@dataclass(frozen=True, slots=True)
class Deployed:
    """The version that the call is answered with, and whether it was active before."""

    version: VersionRow
    unchanged: bool


async def deploy(pool: Pool, call: Call, new_id: Callable[[], str]) -> Deployed:
    """Raises DOCUMENT_CHANGED, DATASET_OWNED, REQUEST_ID_REUSED, and UNAVAILABLE where a dataset that it reads moved.

    Whatever it raises, what was active is active; what was written is found or cleared by a later call.
    """
    deployed = await _deploy(pool, call, new_id)
    await clear_leftovers(pool, call.deployable.name)
    return deployed


async def _deploy(pool: Pool, call: Call, new_id: Callable[[], str]) -> Deployed:
    while True:
        try:
            begun = await _begin(pool, call, new_id)
            if isinstance(begun, Deployed):
                return begun
            identities = await write_version(pool, begun, new_id)
            return Deployed(await _activate(pool, call, begun, identities, new_id), unchanged=False)
        except Overtaken:
            continue  # something is active now, which answers this call


async def _begin(pool: Pool, call: Call, new_id: Callable[[], str]) -> Build | Deployed:
    """What was answered before, or a version to build; a refusal writes nothing."""
    deployable = call.deployable
    async with transaction(pool) as connection:
        answer = await _answer(connection, call)
        if answer is not None:
            return Deployed(answer, unchanged=True)
        _require_owned(deployable, await _owners(connection, deployable))
        build = Build(new_id(), deployable, base=None, actor=call.actor)
        await store.insert_dag(connection, deployable.name, call.actor)
        await store.own_dag(connection, deployable.name)
        await _require_base(connection, build)
        await store.begin_version(
            connection, deployable.name, build.dag_version_id, deployable.spec, deployable.digest, call.actor
        )
        return build


async def _answer(connection: Connection, call: Call) -> VersionRow | None:
    """The version that answers the call without deploying: the one of the same request, or the active one."""
    name, digest = call.deployable.name, call.deployable.digest
    answered = await _answered(connection, call)
    if answered is not None:
        return answered
    active = await store.active_version(connection, name)
    if active is None:
        return None
    if active.spec_digest != digest:
        raise TraceError(
            ErrorReason.ERROR_REASON_DOCUMENT_CHANGED,
            f"{name} is deployed as version {active.version} with another document or other code",
            metadata={"dag": name, "version": str(active.version)},
        )
    await _note_answer(connection, call, active)
    return active


async def _activate(
    pool: Pool, call: Call, build: Build, identities: Identities, new_id: Callable[[], str]
) -> VersionRow:
    """The one transaction in which the version becomes true."""
    deployable = call.deployable
    foreign = {deployable.known[dataset_id].dag for dataset_id in deployable.foreign}
    async with transaction(pool) as connection:
        await store.own_dags(connection, DAG_LOCK_CLASS, [deployable.name, *sorted(foreign)])
        await hold(connection, build)
        await _require_base(connection, build)
        await _require_unmoved(connection, deployable)
        await write(connection, activation_rows(deployable, identities, new_id))
        _require_owned(deployable, await _owners(connection, deployable))
        version = await store.activate(connection, deployable.name, build.dag_version_id)
        await datasets_store.audit(
            connection,
            call.actor,
            "DagService.DeployDag",
            deployable.name,
            version=version.version,
            deploy_number=version.deploy_number,
            spec_sha256=version.spec_digest.hex(),
        )
        await _note_answer(connection, call, version)
    return version


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
            retry_after=RETRY_AFTER,
        )


async def _owners(connection: Connection, deployable: Deployable) -> list[store.OwnerRow]:
    return await store.dataset_owners(connection, [name.casefold() for name in deployable.dataset_fingerprints])


def _require_owned(deployable: Deployable, owners: Sequence[store.OwnerRow]) -> None:
    """No other DAG owns a dataset that this one produces, and none is spelled in another way."""
    by_folded = {owner.folded_id: owner for owner in owners}
    for dataset_id in sorted(deployable.dataset_fingerprints):
        owner = by_folded.get(dataset_id.casefold())
        if owner is not None and (owner.dag, owner.dataset_id) != (deployable.name, dataset_id):
            raise TraceError(
                ErrorReason.ERROR_REASON_DATASET_OWNED,
                f"dataset {dataset_id} is taken by {owner.dataset_id} of DAG {owner.dag}",
                metadata={"dataset_id": dataset_id},
            )


async def _answered(connection: Connection, call: Call) -> VersionRow | None:
    """What the request was answered with. Raises REQUEST_ID_REUSED where that was for another document."""
    answered = await store.answered_deploy(connection, call.request_id)
    if answered is None or (answered.dag, answered.spec_digest) == (call.deployable.name, call.deployable.digest):
        return answered
    raise TraceError(
        ErrorReason.ERROR_REASON_REQUEST_ID_REUSED,
        f"request {call.request_id}: it deployed version {answered.version} of {answered.dag}, with another document",
    )


async def _note_answer(connection: Connection, call: Call, version: VersionRow) -> None:
    """So that the call can be repeated. Raises REQUEST_ID_REUSED where another one took its id meanwhile."""
    if not await store.answer_deploy(connection, call.request_id, version.dag_version_id, call.actor):
        await _answered(connection, call)
