"""Giving dataset versions up: a person names them, and from one commit on nobody can come to need them.

One transaction for each DAG, in the order that keeps it alone with whoever could make a version reachable again:

1. the rows of the DAGs that write or read the versions: no deploy or rollback of theirs goes on meanwhile, and each of
   them finds what is condemned;
2. the versions' rows: a pin, or a binding of another DAG, shares them by its foreign key. What is committed is seen by
   the judgement that follows, what comes later waits, and finds the version condemned;
3. their pins: one that is being renewed is judged by what it becomes.

Then they are judged (`reach.py`), group by group, and those that nothing holds are condemned. `removal.py` does the
rest, now or after any number of deaths.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from dispatcher.audit import store as audit
from dispatcher.audit.entries import Action, Entry, Refusal
from dispatcher.collecting import reach, store
from dispatcher.collecting.reach import Group, Hold, Retention, rollback_window
from dispatcher.collecting.store import Judged, Size
from dispatcher.db.pool import Pool, transaction
from dispatcher.db.rows import Connection
from dispatcher.deploy import store as deploy_store
from dispatcher.deploy.paging import PAGE_ROWS
from kernel.crash import crash


class Outcome(StrEnum):
    """What became of a version that a person named."""

    CONDEMNED = "condemned"
    HELD = "held"
    GONE = "gone"


@dataclass(frozen=True, slots=True)
class Verdict:
    """`hold` where it is held."""

    outcome: Outcome
    hold: Hold | None = None


@dataclass(frozen=True, slots=True)
class Unused:
    """A version that nothing holds, or that is condemned already, with what would go with it."""

    of: Judged
    dag: str
    size: Size


@dataclass(frozen=True, slots=True)
class UnusedPage:
    """`last_id` is where the next page begins; None on the last."""

    versions: Sequence[Unused]
    last_id: str | None


async def unused_versions(
    pool: Pool, retention: Retention, dag: str | None, after: str | None, limit: int
) -> UnusedPage:
    """What could be condemned now; looks at `limit` versions, of which some may be held. Changes nothing."""
    async with transaction(pool) as connection:
        window = await _window(connection, retention)
        ids = await store.candidates(connection, window, dag, after, limit)
        found = reach.groups(await store.outputs(connection, ids))
        judged = await store.judged(connection, _members(found), window)
        dags = {version_id: group.dag for group in _takeable(found, judged) for version_id in group.dataset_version_ids}
        shown = [judged[version_id] for version_id in ids if version_id in dags or _is_condemned(judged, version_id)]
        sizes = await store.sizes(connection, [item.dataset_version_id for item in shown])
    everywhere = {version_id: group.dag for group in found for version_id in group.dataset_version_ids}
    versions = [Unused(item, everywhere[item.dataset_version_id], sizes[item.dataset_version_id]) for item in shown]
    return UnusedPage(versions, ids[-1] if len(ids) == limit else None)


async def condemn(pool: Pool, retention: Retention, version_ids: Sequence[str], actor: str) -> dict[str, Verdict]:
    """By version. What is condemned already stays so."""
    async with transaction(pool) as connection:
        found = reach.groups(await store.outputs(connection, version_ids))
    verdicts = {version_id: Verdict(Outcome.GONE) for version_id in version_ids}
    for dag, members in reach.by_dag(found).items():
        await _clear_abandoned(pool, dag)
        async with transaction(pool) as connection:
            decided = await _condemn_groups(connection, retention, members, actor)
            crash("condemn.written")
        crash("condemn.committed")
        named = {version_id: verdict for version_id, verdict in decided.items() if version_id in verdicts}
        verdicts |= named
        await _record_held(pool, dag, named, actor)
    return verdicts


async def _condemn_groups(
    connection: Connection, retention: Retention, found: Sequence[Group], actor: str
) -> dict[str, Verdict]:
    """Groups of one DAG."""
    members = _members(found)
    await store.own_readers(connection, members)
    await store.lock_versions(connection, members)
    await store.lock_pins(connection, members)
    # Only now: what these locks were waited for is committed, and seen.
    judged = await store.judged(connection, members, await _window(connection, retention))
    takeable = _takeable(found, judged)
    condemned = await store.condemn(connection, _members(takeable), actor)
    await store.retire_jobs(connection, {job for group in takeable for job in group.job_version_ids}, actor)
    if condemned:
        await store.part_from_inputs(connection, condemned)
        details = {"outcome": Outcome.CONDEMNED.value, "datasets": condemned}
        await audit.record(connection, Entry(Action.CONDEMN, actor, found[0].dag, [found[0].dag], details))
    holds = {version_id: item.hold for version_id, item in judged.items()}
    verdicts = {version_id: Verdict(Outcome.CONDEMNED) for version_id in _members(takeable)}
    verdicts |= {version_id: Verdict(Outcome.CONDEMNED) for version_id in members if _is_condemned(judged, version_id)}
    for group in found:
        for version_id, hold in reach.held(group, holds).items():
            if version_id in judged:
                verdicts.setdefault(version_id, Verdict(Outcome.HELD, hold))
    return verdicts


async def _record_held(pool: Pool, dag: str, verdicts: Mapping[str, Verdict], actor: str) -> None:
    """Once for each reason."""
    held: dict[Hold, list[str]] = {}
    for version_id, verdict in verdicts.items():
        if verdict.hold is not None:
            held.setdefault(verdict.hold, []).append(version_id)
    for hold, version_ids in held.items():
        message = f"held: {', '.join(version_ids)}"
        await audit.record_refusal(pool, Refusal(Action.CONDEMN, actor, hold.name, message, dag))


async def _clear_abandoned(pool: Pool, dag: str) -> None:
    """Removes builds that no deploy is at any more: they name versions. One that is at it all the same finds its build
    gone, and begins another."""
    cleared = False
    while not cleared:
        async with transaction(pool) as connection:
            await deploy_store.own_dag(connection, dag)
            build = await store.abandoned_build(connection, dag)
            if build and await deploy_store.remove_composition(connection, build, PAGE_ROWS - 1) == 0:
                await deploy_store.remove_version(connection, build)
        cleared = build is None


async def _window(connection: Connection, retention: Retention) -> set[str]:
    return rollback_window(await store.uses(connection), retention, await store.now(connection))


def _takeable(found: Sequence[Group], judged: Mapping[str, Judged]) -> list[Group]:
    """Those of which nothing is held, and nothing condemned before."""
    holds = {version_id: item.hold for version_id, item in judged.items()}
    return [
        group
        for group in found
        if not reach.held(group, holds)
        and not any(_is_condemned(judged, version_id) for version_id in group.dataset_version_ids)
    ]


def _is_condemned(judged: Mapping[str, Judged], version_id: str) -> bool:
    return version_id in judged and judged[version_id].condemned_at is not None


def _members(found: Sequence[Group]) -> set[str]:
    return {version_id for group in found for version_id in group.dataset_version_ids}
