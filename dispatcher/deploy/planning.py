"""What a deploy would do: where each dataset comes from, and how many tasks each job gets. Pure.

Tasks are counted from events: each event of a dataset that triggers a job is one task of it. A dataset that stays has
its events; of one that is itself built anew nobody knows them yet, and those of the active version stand for them.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from dispatcher.dag.model import JobKind, ResolvedJob
from dispatcher.deploy.comparison import BaseJob, BuiltJob, Change, Job
from dispatcher.deploy.deployable import Deployable


@dataclass(frozen=True, slots=True)
class Outline:
    """All jobs in the order in which they are built, removed ones last, and where each dataset comes from.

    `served` are the versions that the active version serves; `stays` those that go on to be read, of this DAG and of
    others; `taken_up` those that reused jobs have.
    """

    deployable: Deployable
    base: Mapping[str, BaseJob]
    built: Mapping[str, BuiltJob]
    jobs: Sequence[Job]
    served: Mapping[str, str] = field(default_factory=dict)
    stays: Mapping[str, str] = field(default_factory=dict)
    taken_up: Mapping[str, str] = field(default_factory=dict)

    @property
    def version_ids(self) -> set[str]:
        """Dataset versions whose events have to be counted."""
        return {*self.served.values(), *self.stays.values(), *self.taken_up.values()}

    @property
    def intervals(self) -> list[tuple[str, str]]:
        """Of reused jobs: (job version, version that triggers it), of which they may have missed events."""
        return [
            (self.built[job.name].job_version_id, version)
            for job in self.deployable.dag.jobs
            if job.name in self.built
            for item in job.triggers
            if (version := self.version_of(item.dataset_id))
        ]

    @property
    def replaced(self) -> list[BaseJob]:
        """Jobs of the active version that would not run any more."""
        goes_on = {job.job for job in self.jobs if job.change is Change.SHARED}
        return [self.base[name] for name in sorted(self.base) if name not in goes_on]

    @property
    def changed_datasets(self) -> list[str]:
        """Datasets of the active version that get another version, or none."""
        return sorted(dataset_id for dataset_id in self.served if dataset_id not in self.stays)

    def version_of(self, dataset_id: str) -> str:
        """The version that would be read; empty where it is not built yet."""
        return self.stays.get(dataset_id) or self.taken_up.get(dataset_id) or ""


@dataclass(frozen=True, slots=True)
class Events:
    """What was counted: events by dataset version, and those that reused jobs missed, by (job version, version)."""

    counts: Mapping[str, int] = field(default_factory=dict)
    missed: Mapping[tuple[str, str], int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Tasks:
    """Tasks of a job before the cutover; `estimated` where it may come out differently."""

    count: int = 0
    estimated: bool = False


def outline(
    deployable: Deployable, base: Mapping[str, BaseJob], built: Mapping[str, BuiltJob], jobs: Sequence[Job]
) -> Outline:
    """`built` may have versions of jobs that are shared, which are left out."""
    by_name = {job.job: job for job in jobs}
    stays: dict[str, str] = dict(deployable.foreign)
    taken_up: dict[str, str] = {}
    for name, job in by_name.items():
        if job.change is Change.SHARED:
            stays |= base[name].outputs
        elif job.change is Change.REUSED:
            taken_up |= built[name].outputs
    return Outline(
        deployable=deployable,
        base=base,
        built={name: found for name, found in built.items() if by_name[name].change is Change.REUSED},
        jobs=jobs,
        served={dataset_id: version for job in base.values() for dataset_id, version in job.outputs.items()},
        stays=stays,
        taken_up=taken_up,
    )


def count_tasks(of: Outline, events: Events) -> dict[str, Tasks]:
    """By job. Each job comes after those that it reads."""
    by_name = {job.job: job for job in of.jobs}
    counted: dict[str, Tasks] = {}
    will_have: dict[str, int] = {}  # events, by dataset that gets another version
    for job in of.deployable.dag.jobs:
        change = by_name[job.name].change
        if change is Change.SHARED or job.kind is JobKind.VIRTUAL:
            counted[job.name] = Tasks()
            continue
        if change is Change.REUSED:
            tasks = _missed(of, job, events, will_have)
        elif job.kind is JobKind.SOURCE:
            tasks = Tasks(1)
        else:
            tasks = _sum(_of_input(of, item.dataset_id, events, will_have) for item in job.triggers)
        counted[job.name] = tasks
        for output in job.outputs:
            _expect(of, job, output.dataset_id, tasks.count, events, will_have)
    return counted


def _expect(
    of: Outline, job: ResolvedJob, dataset_id: str, tasks: int, events: Events, will_have: dict[str, int]
) -> None:
    """How many events a dataset will have that gets another version: as many as the one now served, else an event for
    each task; a source of which there is no version counts none."""
    known = of.served.get(dataset_id) or of.taken_up.get(dataset_id)
    if known is not None:
        will_have[dataset_id] = max(
            events.counts.get(version, 0) for version in (known, of.taken_up.get(dataset_id, known))
        )
    elif job.kind is not JobKind.SOURCE:
        will_have[dataset_id] = will_have.get(dataset_id, 0) + tasks


def _of_input(of: Outline, dataset_id: str, events: Events, will_have: Mapping[str, int]) -> Tasks:
    if dataset_id in of.stays:
        return Tasks(events.counts.get(of.stays[dataset_id], 0))
    return Tasks(will_have.get(dataset_id, 0), estimated=True)


def _missed(of: Outline, job: ResolvedJob, events: Events, will_have: Mapping[str, int]) -> Tasks:
    """What a reused job did not finish, and the events that it did not get."""
    built = of.built[job.name]
    parts = [Tasks(built.open_tasks)]
    for item in job.triggers:
        version = of.version_of(item.dataset_id)
        missed = events.missed.get((built.job_version_id, version), 0)
        if item.dataset_id in of.stays:
            parts.append(Tasks(missed))
        else:  # what it reads is taken up again too, and will have more
            had = events.counts.get(version, 0) - missed
            parts.append(Tasks(max(0, will_have.get(item.dataset_id, 0) - had), estimated=True))
    return _sum(parts)


def _sum(parts: Iterable[Tasks]) -> Tasks:
    found = list(parts)
    return Tasks(sum(part.count for part in found), any(part.estimated and part.count for part in found))
