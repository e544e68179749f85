"""The graph of a DAG: its nodes are jobs and datasets, those of other DAGs too; its edges are reading and producing."""

from collections.abc import Mapping
from dataclasses import dataclass

import networkx as nx

from dispatcher.dag.model import KnownDatasets
from dispatcher.dag.problems import Findings, Path, Position, clip

# Names of a cycle that a problem shows.
_MAX_SHOWN = 20


@dataclass(frozen=True, slots=True, order=True)
class Job:
    """A node: a job of the document."""

    name: str


@dataclass(frozen=True, slots=True, order=True)
class Dataset:
    """A node: a dataset, of the document or of another DAG."""

    name: str


@dataclass(frozen=True, slots=True)
class Flow:
    """What one job reads and produces. `reads` says where in the document it does."""

    reads: Mapping[str, Path]
    produces: tuple[str, ...]


def order_jobs(flows: Mapping[str, Flow], dag: str, known: KnownDatasets, findings: Findings) -> list[str]:
    """Names of the jobs, producers before their readers and else by name; reports a cycle of each knot.

    The jobs of a knot come last: nothing that they produce is certain.
    """
    graph = _graph(flows, dag, known)
    knotted: set[str] = set()
    # Most documents have no cycle, which is seen much sooner than where one would be.
    components = [] if nx.is_directed_acyclic_graph(graph) else nx.strongly_connected_components(graph)
    for component in components:
        jobs = sorted(node for node in component if isinstance(node, Job))
        if not jobs or (len(component) == 1 and not graph.has_edge(jobs[0], jobs[0])):
            continue
        knotted |= {job.name for job in jobs}
        _report(nx.subgraph(graph, component), jobs, flows, findings)
    jobs_only: nx.DiGraph[str] = nx.DiGraph()
    jobs_only.add_nodes_from(sorted(set(flows) - knotted))
    for name in jobs_only:
        for dataset_id in flows[name].produces:
            readers = graph.successors(Dataset(dataset_id))
            found = (reader.name for reader in readers if isinstance(reader, Job))
            jobs_only.add_edges_from((name, reader) for reader in found if reader not in knotted)
    return [*nx.lexicographical_topological_sort(jobs_only), *sorted(knotted)]


def _graph(flows: Mapping[str, Flow], dag: str, known: KnownDatasets) -> "nx.DiGraph[Job | Dataset]":
    graph: nx.DiGraph[Job | Dataset] = nx.DiGraph()
    produced = {dataset_id for flow in flows.values() for dataset_id in flow.produces}
    for name, flow in sorted(flows.items()):
        graph.add_node(Job(name))
        graph.add_edges_from((Dataset(dataset_id), Job(name)) for dataset_id in sorted(flow.reads))
        graph.add_edges_from((Job(name), Dataset(dataset_id)) for dataset_id in sorted(flow.produces))
    for dataset_id, dataset in known.items():
        if dataset.dag != dag and dataset_id not in produced:
            graph.add_edges_from((Dataset(source), Dataset(dataset_id)) for source in dataset.dependencies)
    return graph


def _report(knot: "nx.DiGraph[Job | Dataset]", jobs: list[Job], flows: Mapping[str, Flow], findings: Findings) -> None:
    """Reports the shortest cycle through the job of the knot that the document names first."""

    def place(job: Job) -> tuple[Position, str]:
        return findings.places.key(("jobs", job.name)), job.name

    start = min(jobs, key=place)
    ways = [nx.shortest_path(knot, successor, start) for successor in sorted(knot.successors(start), key=str)]
    cycle = [start, *min(ways, key=len)]
    names = [clip(node.name) for node in cycle]
    if len(names) > _MAX_SHOWN:
        half = _MAX_SHOWN // 2
        names = [*names[:half], f"... {len(names) - 2 * half} more ...", *names[-half:]]
    shown = " -> ".join(names)
    last = cycle[-2].name  # the dataset through which the cycle comes back
    findings.at_key(
        flows[start.name].reads[last],
        f"the jobs form a cycle: {shown}",
        "let one of them read something else",
    )
