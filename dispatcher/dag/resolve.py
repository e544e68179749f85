"""From a spec to the resolved DAG: what concerns several jobs is checked here, each job by itself in `jobs`."""

from collections.abc import Mapping

from dispatcher.dag.checks import kind_of
from dispatcher.dag.datasets import Names, check_datasets, known_relations, producers
from dispatcher.dag.graph import Flow, order_jobs
from dispatcher.dag.jobs import JobResolver
from dispatcher.dag.model import JobKind, KnownDatasets, ResolvedDag
from dispatcher.dag.problems import Findings, Path, clip
from dispatcher.dag.queries import Query, read_queries
from dispatcher.dag.size import check_size
from dispatcher.dag.sql import Binder
from traceapi.types.v1.dag_pb2 import DagSpec


def resolve(spec: DagSpec, known: KnownDatasets, findings: Findings) -> ResolvedDag | None:
    """The DAG with every default filled in, or None where there are problems; `findings` gets all that are seen."""
    produced = producers(spec)
    foreign = known_relations(spec, known)
    names = Names({*produced, *foreign})
    check_datasets(spec, known, findings)
    queries = read_queries(spec, names, findings)
    _check_inputs_exist(spec, names, known, findings)
    order = order_jobs(_flows(spec, names, queries), spec.dag, known, findings)
    with Binder() as binder:
        resolver = JobResolver(spec, foreign, queries, binder, findings)
        jobs = [job for name in order if not findings.full and (job := resolver.job(name)) is not None]
    check_size(jobs, findings)
    if findings.problems or len(jobs) < len(spec.jobs):
        return None
    return ResolvedDag(spec.dag, spec.description, spec, tuple(jobs))


def _check_inputs_exist(spec: DagSpec, names: Names, known: KnownDatasets, findings: Findings) -> None:
    outputs_unread = any(findings.unread(("jobs", name, "outputs")) for name in spec.jobs)
    if outputs_unread or findings.unread(("jobs",)):
        return  # what looks missing may be produced by what could not be read
    for job in sorted(name for name in spec.jobs if kind_of(spec.jobs[name]) in (None, JobKind.OPERATOR)):
        for dataset_id in sorted(spec.jobs[job].inputs):
            if dataset_id in names:
                continue
            path: Path = ("jobs", job, "inputs", dataset_id)
            message = f"no job of this DAG produces `{clip(dataset_id)}`, nor does another DAG"
            if dataset_id in known:
                message = (
                    f"`{clip(dataset_id)}` was produced by an earlier version of this DAG, and by no job of this one"
                )
            other = names.find(dataset_id)
            near = other if other is not None else findings.nearest(dataset_id, names)
            remedy = f"did you mean `{clip(near)}`?" if near else "name a dataset that a job produces"
            findings.at_key(path, message, remedy)


def _flows(spec: DagSpec, names: Names, queries: Mapping[str, Query]) -> dict[str, Flow]:
    flows = {}
    for name, job in spec.jobs.items():
        reads: dict[str, Path] = {item: ("jobs", name, "inputs", item) for item in job.inputs if item in names}
        query = queries.get(name)
        if query is not None and job.HasField("virtual"):
            reads = dict.fromkeys(query.names or (), query.path)
        flows[name] = Flow(reads, tuple(job.outputs))
    return flows
