"""A document against the active version: what becomes of each job, and for which fields. Pure.

A job is told by its version key. The same key as in the active version is the same job version, which goes on as it
runs. Another key is another version: built before, or to be built; then it either differs in a field of its own, or
only by what it reads, or by who writes a dataset together with it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from dispatcher.dag.diff import Document, FieldChange, field_changes
from dispatcher.dag.model import ResolvedJob
from dispatcher.deploy.deployable import Deployable
from traceapi.types.v1.dag_pb2 import DagSpec


class Change(StrEnum):
    """What becomes of a job, as JOB_CHANGE_* of the contract."""

    ADDED = "added"
    CHANGED = "changed"
    DOWNSTREAM = "downstream"
    SHARED = "shared"
    REUSED = "reused"
    REMOVED = "removed"


@dataclass(frozen=True, slots=True)
class Read:
    """A dataset version of which a job gets the events."""

    dataset_id: str
    dataset_version_id: str


@dataclass(frozen=True, slots=True)
class BaseJob:
    """A job of the active version. `key` is its version key; `bundles` by local path, `outputs` by dataset."""

    job: str
    job_version_id: str
    kind: str
    key: bytes
    queue: str
    max_concurrency: int | None
    bundles: Mapping[str, str]
    triggers: Sequence[Read]
    outputs: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class BuiltJob:
    """A job version that is there and was part of a version that ran. `outputs` are versions by dataset, `open_tasks`
    what it has to do and did not finish."""

    job: str
    job_version_id: str
    outputs: Mapping[str, str]
    open_tasks: int


@dataclass(frozen=True, slots=True)
class Job:
    """A job with what becomes of it, before anything is counted."""

    job: str
    change: Change
    field_changes: Sequence[FieldChange] = ()
    job_version_id: str = ""
    key: bytes = b""


def changes(
    deployable: Deployable,
    base: Mapping[str, BaseJob],
    built: Mapping[str, BuiltJob],
    differences: Mapping[str, Sequence[FieldChange]],
) -> list[Job]:
    """What becomes of each job. `built` and `differences` by job: of those that have any."""
    jobs = []
    for job in deployable.dag.jobs:
        key, before, found = deployable.version_keys[job.name], base.get(job.name), differences.get(job.name, ())
        if before is not None and before.key == key:
            execution = [each for each in found if not each.materialization]
            jobs.append(Job(job.name, Change.SHARED, execution, before.job_version_id, key))
        elif job.name in built:
            jobs.append(Job(job.name, Change.REUSED, found, built[job.name].job_version_id, key))
        elif before is None:
            jobs.append(Job(job.name, Change.ADDED, key=key))
        else:
            own = any(each.materialization for each in found)
            jobs.append(Job(job.name, Change.CHANGED if own else Change.DOWNSTREAM, found, key=key))
    removed = sorted(set(base) - {job.name for job in deployable.dag.jobs})
    return jobs + [Job(name, Change.REMOVED, job_version_id=base[name].job_version_id) for name in removed]


def differences(deployable: Deployable, before: DagSpec, base: Mapping[str, BaseJob]) -> dict[str, list[FieldChange]]:
    """What differs of the jobs that both have, where anything does; `before` is the document of `base`."""
    spec = DagSpec.FromString(deployable.spec)
    bundles = {path: digest for job in base.values() for path, digest in job.bundles.items()}
    virtual = [dataset_id for dataset_id, dataset in deployable.known.items() if dataset.virtual_sql]
    former, after = Document(before, bundles, virtual), Document(spec, deployable.bundles, virtual)
    same_defaults = before.defaults == spec.defaults
    found = {}
    for job in deployable.dag.jobs:
        if job.name not in base or (
            same_defaults
            and before.jobs[job.name] == spec.jobs[job.name]
            and _same_paths(job, deployable.bundles, bundles)
        ):
            continue
        if changed := field_changes(former, after, job):
            found[job.name] = changed
    return found


def _same_paths(job: ResolvedJob, now: Mapping[str, str], before: Mapping[str, str]) -> bool:
    return all(now.get(item.path) == before.get(item.path) for item in job.local_paths)
