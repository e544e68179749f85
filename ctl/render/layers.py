"""The graph of a DAG, laid out in layers: what stands above what, and beside what. Whoever draws says where exactly.

Layered drawing after Sugiyama, Tagawa and Toda (1981): (1) a job's layer is the longest path to it; (2) an edge that
spans layers gets a dummy in each; (3) what is in a layer is ordered by the mean place of what it hangs on, sweeping
down and up.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from traceapi.types.v1 import dag_pb2

_SWEEPS = 8


@dataclass(frozen=True, slots=True)
class Edge:
    """Datasets flow from one job to another; `triggers`: one of them causes tasks."""

    source: str
    target: str
    triggers: bool


@dataclass(frozen=True, slots=True)
class Flow:
    """A job reads a dataset. `source` is the job of the DAG that produces it, empty where another DAG does."""

    dataset: str
    source: str
    target: str
    triggers: bool


@dataclass(frozen=True, slots=True)
class Place:
    """A job in its layer, or a dummy where a long edge passes, which is solid where its edge triggers."""

    name: str
    layer: int
    dummy: bool = False
    solid: bool = True


@dataclass(frozen=True, slots=True)
class Layers:
    """The places of each layer in their order, and the edges cut into segments from a layer to the next."""

    layers: Sequence[Sequence[Place]]
    segments: Sequence[Edge]


def flows_of(spec: dag_pb2.DagSpec) -> list[Flow]:
    """Who reads what, by reader and dataset. Virtual jobs read what their SQL names."""
    producers: dict[str, list[str]] = {}
    for job in sorted(spec.jobs):
        for dataset in spec.jobs[job].outputs:
            producers.setdefault(dataset.casefold(), []).append(job)
    return [
        Flow(dataset, producer, job, triggers)
        for job in sorted(spec.jobs)
        for dataset, triggers in _reads(spec.jobs[job])
        for producer in producers.get(dataset.casefold(), [""])
        if producer != job
    ]


def edges_of(spec: dag_pb2.DagSpec) -> list[Edge]:
    """Producer to consumer, within the DAG, each once."""
    found: dict[tuple[str, str], Edge] = {}
    for flow in flows_of(spec):
        if flow.source:
            before = found.get((flow.source, flow.target))
            triggers = flow.triggers or (before is not None and before.triggers)
            found[flow.source, flow.target] = Edge(flow.source, flow.target, triggers)
    return list(found.values())


def _reads(job: dag_pb2.JobSpec) -> list[tuple[str, bool]]:
    if job.WhichOneof("kind") != "virtual":
        return [(name, not put.HasField("trigger") or put.trigger) for name, put in sorted(job.inputs.items())]
    # DuckDB, which parses it, takes a tenth of a second to load: only who draws a virtual job waits for it.
    from kernel.dataset_sql import SqlError, table_names

    try:
        return [(table.dataset_id, False) for table in table_names(job.virtual.sql)]
    except SqlError:
        return []


def layers_of(jobs: Sequence[str], edges: Sequence[Edge]) -> dict[str, int]:
    """The longest path to each job. A cycle, which no deployed DAG has, ends the walk instead of the program."""
    layer = dict.fromkeys(jobs, 0)
    for _ in jobs:
        changed = False
        for edge in edges:
            if layer[edge.target] < layer[edge.source] + 1 <= len(jobs):
                layer[edge.target] = layer[edge.source] + 1
                changed = True
        if not changed:
            break
    return layer


def in_order(spec: dag_pb2.DagSpec) -> list[str]:
    """The jobs as data flows: what a job reads comes before it."""
    layer = layers_of(sorted(spec.jobs), edges_of(spec))
    return sorted(spec.jobs, key=lambda job: (layer[job], job))


def arrange(layer: Mapping[str, int], edges: Sequence[Edge]) -> Layers:
    """`layer` by name; every edge leads to a later one."""
    places = [Place(name, number) for name, number in layer.items()]
    segments: list[Edge] = []
    for edge in edges:
        before = edge.source
        for number in range(layer[edge.source] + 1, layer[edge.target]):
            dummy = Place(f"{edge.source}\0{edge.target}\0{number}", number, dummy=True, solid=edge.triggers)
            places.append(dummy)
            segments.append(Edge(before, dummy.name, edge.triggers))
            before = dummy.name
        segments.append(Edge(before, edge.target, edge.triggers))
    count = max((place.layer for place in places), default=-1) + 1
    layers: list[list[Place]] = [[] for _ in range(count)]
    for place in places:
        layers[place.layer].append(place)
    _order(layers, segments)
    return Layers(layers, segments)


def _order(layers: list[list[Place]], segments: Sequence[Edge]) -> None:
    """So that few segments cross."""
    above: dict[str, list[str]] = {}
    below: dict[str, list[str]] = {}
    for segment in segments:
        above.setdefault(segment.target, []).append(segment.source)
        below.setdefault(segment.source, []).append(segment.target)
    index = {place.name: number for layer in layers for number, place in enumerate(layer)}
    for sweep in range(_SWEEPS):
        down = sweep % 2 == 0
        neighbours = above if down else below
        for layer in layers if down else reversed(layers):
            wanted = [
                _mean([index[name] for name in neighbours.get(place.name, ())], index[place.name]) for place in layer
            ]
            ranked = sorted(zip(wanted, range(len(layer)), layer, strict=True))
            layer[:] = [place for _, _, place in ranked]
            index.update((place.name, number) for number, place in enumerate(layer))


def _mean(places: Sequence[int], otherwise: int) -> float:
    return sum(places) / len(places) if places else float(otherwise)
