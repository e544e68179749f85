"""Writes a DAG version beside what is active, where nobody sees it, in as many transactions as it takes.

Each transaction owns the DAG's row and finds the version still being built, or raises Overtaken: so no row is added to
a version that was cleared away meanwhile, and two deploys of one DAG never write the same job version twice.
"""

from collections.abc import Callable
from dataclasses import dataclass

from dispatcher.dag.size import job_rows
from dispatcher.db.pool import Pool, transaction
from dispatcher.db.rows import Connection
from dispatcher.deploy import paging, store
from dispatcher.deploy.composition import composition_rows
from dispatcher.deploy.deployable import Deployable
from dispatcher.deploy.versions import Identities, version_rows
from dispatcher.deploy.writes import write
from kernel.crash import crash


@dataclass(frozen=True, slots=True)
class Build:
    """A DAG version that was begun."""

    dag_version_id: str
    deployable: Deployable
    base: str | None  # the version that was active then
    actor: str


class Overtaken(Exception):
    """Since the build was begun another version went active, or the DAG was removed and that is not done."""


async def own_build(connection: Connection, build: Build) -> None:
    """Owns the DAG until the end of the transaction. Raises Overtaken where the version is not being built any more."""
    await store.own_dag(connection, build.deployable.name)
    if not await store.still_building(connection, build.dag_version_id):
        raise Overtaken


async def write_version(pool: Pool, build: Build, new_id: Callable[[], str]) -> Identities:
    """Everything but what makes it active. Raises Overtaken."""
    identities = await _write_jobs(pool, build, new_id)
    for page in paging.pages(composition_rows(build.deployable, build.dag_version_id, identities), paging.row_cost):
        async with transaction(pool) as connection:
            await own_build(connection, build)
            await write(connection, page)
            crash("deploy.page")
    return identities


async def _write_jobs(pool: Pool, build: Build, new_id: Callable[[], str]) -> Identities:
    """The job versions that are not there yet, with their outputs."""
    deployable = build.deployable
    identities = Identities()
    for jobs in paging.pages(sorted(deployable.dag.jobs, key=lambda job: job.name), job_rows):
        async with transaction(pool) as connection:
            await own_build(connection, build)
            keys = {job.name: deployable.version_keys[job.name] for job in jobs}
            stored = await store.stored_jobs(connection, deployable.name, keys)
            rows, identities = version_rows(deployable, jobs, stored, identities, build.actor, new_id)
            await write(connection, rows)
    return identities


async def clear_leftovers(pool: Pool, dag: str) -> None:
    """Removes versions that a deploy left unfinished and that can never follow on what is active now.

    Their job versions stay: a later deploy takes them up where it has the same.
    """
    cleared = False
    while not cleared:
        async with transaction(pool) as connection:
            await store.own_dag(connection, dag)
            leftover = await store.leftover(connection, dag)
            if leftover is not None and await store.remove_composition(connection, leftover, paging.PAGE_ROWS - 1) == 0:
                await store.remove_version(connection, leftover)
        cleared = leftover is None
