"""What holds a dataset version. Pure.

A version is *reachable*, and stays, while one of these names it:

* a DAG version that is active, or on its way to be: what it serves (the pointers), and what its jobs read, also of
  other DAGs;
* the *rollback window* of its DAG: versions that were active, the latest few, and all that were not long ago;
* a reader: a query's pin that has not expired, a task that is not finished and reads it or was caused by it.

Job versions that write a version together, and versions that a job version writes together, are one *group*: it is
taken as a whole or not at all, since a deploy takes a job version up again with all that it writes.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

SETTLING = timedelta(hours=1)
"""A version that has just left its pointer stays so long, whatever the settings say: far longer than a transaction
takes that found it there, such as the claim of a task that pins its inputs."""


class Hold(StrEnum):
    """Why a version is not taken, the first reason that there is; the words are those of the statement `judged`."""

    SERVED = "served"
    DEPLOYING = "deploying"
    ROLLBACK = "rollback"
    PINNED = "pinned"
    READ = "read"
    RECENT = "recent"
    SIBLING = "sibling"


@dataclass(frozen=True, slots=True)
class Retention:
    """How long what nobody needs is kept all the same."""

    orphan_grace: timedelta
    rollback_versions: int
    rollback_age: timedelta


@dataclass(frozen=True, slots=True)
class Use:
    """The last time that a DAG version was active: from this deploy number until then, None where it still is.

    The DAG of one that is `removed` cannot be rolled back."""

    dag: str
    dag_version_id: str
    from_deploy: int
    until: datetime | None
    removed: bool = False


@dataclass(frozen=True, slots=True)
class Output:
    """A job version of a DAG writes a dataset version."""

    dag: str
    job_version_id: str
    dataset_version_id: str


@dataclass(frozen=True, slots=True)
class Group:
    """What is taken together."""

    dag: str
    job_version_ids: frozenset[str]
    dataset_version_ids: frozenset[str]


def rollback_window(uses: Iterable[Use], retention: Retention, now: datetime) -> set[str]:
    """The DAG versions that a rollback may restore, with those that nothing has followed yet.

    Of a removed DAG, what was active not long ago: somebody may deploy it again."""
    window: set[str] = set()
    former_of: defaultdict[str, list[Use]] = defaultdict(list)
    for use in uses:
        if use.until is None or use.until > now - retention.rollback_age:
            window.add(use.dag_version_id)
        if use.until is not None and not use.removed:
            former_of[use.dag].append(use)
    for former in former_of.values():
        former.sort(key=lambda use: use.from_deploy, reverse=True)
        window |= {use.dag_version_id for use in former[: retention.rollback_versions]}
    return window


def groups(outputs: Iterable[Output]) -> list[Group]:
    """Job versions and what they write, joined where they share something; in the order of their ids."""
    jobs_of: defaultdict[str, set[str]] = defaultdict(set)
    versions_of: defaultdict[str, set[str]] = defaultdict(set)
    dags: dict[str, str] = {}
    for output in outputs:
        jobs_of[output.dataset_version_id].add(output.job_version_id)
        versions_of[output.job_version_id].add(output.dataset_version_id)
        dags[output.job_version_id] = output.dag
    found: list[Group] = []
    seen: set[str] = set()
    for start in sorted(jobs_of):
        if start in seen:
            continue
        jobs: set[str] = set()
        versions, frontier = {start}, {start}
        while frontier:
            jobs |= {job for version in frontier for job in jobs_of[version]}
            frontier = {version for job in jobs for version in versions_of[job]} - versions
            versions |= frontier
        seen |= versions
        found.append(Group(dags[min(jobs)], frozenset(jobs), frozenset(versions)))
    return found


def held(group: Group, holds: Mapping[str, Hold | None]) -> dict[str, Hold]:
    """Why each version of the group stays; empty where the whole group may be taken. `holds` by version: a version that
    is not there stays too."""
    own = {version_id: holds.get(version_id, Hold.SIBLING) for version_id in sorted(group.dataset_version_ids)}
    if all(hold is None for hold in own.values()):
        return {}
    return {version_id: hold or Hold.SIBLING for version_id, hold in own.items()}


def by_dag(found: Sequence[Group]) -> dict[str, list[Group]]:
    """Groups of each DAG."""
    result: defaultdict[str, list[Group]] = defaultdict(list)
    for group in found:
        result[group.dag].append(group)
    return dict(sorted(result.items()))
