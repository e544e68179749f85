"""A DAG as an SVG picture: a box for each job, coloured by its kind, and on the lines between them the datasets.

`layers` says what stands beside and above what; here it gets coordinates. In each layer the boxes are drawn towards the
mean of what they hang on, without coming nearer to each other than the gap. The picture has a ground of its own, light
or dark as the reader's screen is, so that it can be read wherever it is shown. Sizes are pixels; letters are of one
width, so text can be measured without a font.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from itertools import pairwise

from rich.cells import cell_len

from ctl.render.layers import Edge, Flow, Layers, Place, arrange, flows_of, layers_of
from ctl.render.printable import printable
from traceapi.types.v1 import dag_pb2

_LETTER = 7.3
_LINE = 17
_PADDING = 12
_GAP = 36
_MARGIN = 24
_LEAST_STEP = 56
_LABEL_STEP = 20
_SWEEPS = 12

_STYLE = """
  text { font: 12px ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace; fill: #1c2330; }
  .ground { fill: #ffffff; }
  .name { font-weight: bold; }
  .what { fill: #566074; }
  .job { stroke-width: 1.5; rx: 7px; }
  .source { fill: #e3f5e6; stroke: #2c8a45; }
  .operator { fill: #e4eefc; stroke: #2f6fc1; }
  .virtual { fill: #f3e8fc; stroke: #8a4bbd; stroke-dasharray: 6 3; }
  .foreign { fill: #f1f2f4; stroke: #7b8494; stroke-dasharray: 2 3; }
  .line { fill: none; stroke: #6b7587; stroke-width: 1.5; }
  .read { stroke-dasharray: 5 4; }
  .head { fill: #6b7587; }
  .dataset { fill: #9c2a77; stroke: #ffffff; stroke-width: 4px; paint-order: stroke; text-anchor: middle; }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6e9ef; }
    .ground { fill: #14181f; }
    .what { fill: #a3adbd; }
    .source { fill: #17331f; stroke: #5cc27a; }
    .operator { fill: #16283f; stroke: #6ea8ef; }
    .virtual { fill: #2c1b3b; stroke: #bd86ea; }
    .foreign { fill: #20252e; stroke: #97a1b1; }
    .line { stroke: #8f9aac; }
    .head { fill: #8f9aac; }
    .dataset { fill: #f08cc9; stroke: #14181f; }
  }
""".strip("\n")


@dataclass(slots=True)
class _Box:
    """A job or a dataset of another DAG; without lines, a place where a long line passes. `x` is its centre."""

    kind: str = ""
    lines: Sequence[str] = ()
    x: float = 0.0
    top: float = 0.0
    bottom: float = 0.0

    @property
    def width(self) -> float:
        return max(cell_len(line) for line in self.lines) * _LETTER + 2 * _PADDING if self.lines else 8.0

    @property
    def height(self) -> float:
        return len(self.lines) * _LINE + 2 * _PADDING - 4 if self.lines else 0.0


@dataclass(slots=True)
class _Label:
    """The name of a dataset beside the lines that leave its producer towards the next layer."""

    text: str
    x: float
    row: int = 0

    @property
    def width(self) -> float:
        return cell_len(self.text) * _LETTER + 10


@dataclass(frozen=True, slots=True)
class _Plan:
    """What is drawn, before it has coordinates. `labels` are (dataset, box that it leaves, next place)."""

    boxes: Mapping[str, _Box]
    layers: Layers
    labels: Sequence[tuple[str, str, str]] = field(default=())


def draw_svg(spec: dag_pb2.DagSpec) -> str:
    """The whole file."""
    plan = _plan(spec)
    _place_across(plan)
    steps = [_labels(plan, number) for number in range(len(plan.layers.layers))]
    width = _move_inside([*plan.boxes.values(), *(label for labels in steps for label in labels)])
    height = _place_down(plan, steps)
    parts = [*_lines(plan), *_names(plan, steps), *(_drawn(box) for box in plan.boxes.values() if box.lines)]
    title = escape(printable(f"DAG {spec.dag}"))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}"'
        f' height="{height:.0f}" role="img">\n<title>{title}</title>\n<style>\n{_STYLE}\n</style>\n'
        '<defs><marker id="head" markerWidth="9" markerHeight="8" refX="8" refY="4" orient="auto">'
        '<path class="head" d="M0,0 L9,4 L0,8 z"/></marker></defs>\n'
        '<rect class="ground" width="100%" height="100%"/>\n' + "\n".join(parts) + "\n</svg>\n"
    )


def _plan(spec: dag_pb2.DagSpec) -> _Plan:
    flows = [_from_elsewhere(flow) for flow in flows_of(spec)]
    edges = _edges(flows)
    read = {flow.dataset.casefold() for flow in flows}
    boxes = {name: _job_box(name, spec.jobs[name], read) for name in sorted(spec.jobs)}
    foreign = {flow.source: flow.dataset for flow in flows if flow.source not in boxes}
    boxes |= {name: _Box("foreign", [printable(foreign[name]), "of another DAG"]) for name in sorted(foreign)}
    layer = layers_of(list(boxes), edges)
    for name in foreign:  # just above who reads it first
        layer[name] = min(layer[edge.target] for edge in edges if edge.source == name) - 1
    layers = arrange(layer, edges)
    boxes |= {place.name: _Box() for row in layers.layers for place in row if place.dummy}
    return _Plan(boxes, layers, _labelled(flows, layers))


def _from_elsewhere(flow: Flow) -> Flow:
    """A dataset of another DAG is a box of its own."""
    return flow if flow.source else Flow(flow.dataset, f"\0{flow.dataset}", flow.target, flow.triggers)


def _edges(flows: Sequence[Flow]) -> list[Edge]:
    found: dict[tuple[str, str], bool] = {}
    for flow in flows:
        key = (flow.source, flow.target)
        found[key] = flow.triggers or found.get(key, False)
    return [Edge(source, target, triggers) for (source, target), triggers in found.items()]


def _job_box(name: str, job: dag_pb2.JobSpec, read: set[str]) -> _Box:
    """Name, implementation, and the datasets that no job of the DAG reads: they have no line to stand on."""
    kind = job.WhichOneof("kind") or "operator"
    implementation = "virtual" if kind == "virtual" else printable(str(getattr(job, kind)))
    unread = [f"▸ {printable(dataset)}" for dataset in sorted(job.outputs) if dataset.casefold() not in read]
    return _Box(kind, [name, implementation, *unread])


def _labelled(flows: Sequence[Flow], layers: Layers) -> list[tuple[str, str, str]]:
    """Each dataset on the first part of its ways, once for each place that comes next."""
    nexts: dict[str, list[str]] = {}
    for segment in layers.segments:
        nexts.setdefault(segment.source, []).append(segment.target)
    found = []
    for flow in flows:
        if flow.source.startswith("\0"):
            continue
        passing = [name for name in nexts.get(flow.source, ()) if name.split("\0")[:2] == [flow.source, flow.target]]
        found += [(printable(flow.dataset), flow.source, name) for name in passing or [flow.target]]
    return found


def _place_across(plan: _Plan) -> None:
    above: dict[str, list[str]] = {}
    below: dict[str, list[str]] = {}
    for segment in plan.layers.segments:
        above.setdefault(segment.target, []).append(segment.source)
        below.setdefault(segment.source, []).append(segment.target)
    for layer in plan.layers.layers:
        _spread(plan, layer, [0.0] * len(layer))
    for sweep in range(_SWEEPS):
        down = sweep % 2 == 0
        neighbours = above if down else below
        for layer in plan.layers.layers if down else reversed(plan.layers.layers):
            _spread(plan, layer, [_mean(plan, neighbours.get(place.name, ()), place.name) for place in layer])


def _move_inside(drawn: Sequence[_Box | _Label]) -> float:
    """So that everything is within the margins; answers the width of all."""
    left = min((each.x - each.width / 2 for each in drawn), default=0.0)
    for each in drawn:
        each.x += _MARGIN - left
    return max((each.x + each.width / 2 for each in drawn), default=0.0) + _MARGIN


def _mean(plan: _Plan, names: Sequence[str], own: str) -> float:
    return sum(plan.boxes[name].x for name in names) / len(names) if names else plan.boxes[own].x


def _spread(plan: _Plan, layer: Sequence[Place], wanted: Sequence[float]) -> None:
    """Near where they are wanted, in their order: half way between as far left and as far right as that allows."""
    boxes = [plan.boxes[place.name] for place in layer]
    apart = [(left.width + right.width) / 2 + _GAP for left, right in pairwise(boxes)]
    rightwards, leftwards = list(wanted), list(wanted)
    for number, distance in enumerate(apart):
        rightwards[number + 1] = max(wanted[number + 1], rightwards[number] + distance)
    for number in reversed(range(len(apart))):
        leftwards[number] = min(wanted[number], leftwards[number + 1] - apart[number])
    for box, one, other in zip(boxes, rightwards, leftwards, strict=True):
        box.x = (one + other) / 2


def _labels(plan: _Plan, number: int) -> list[_Label]:
    """The labels below a layer; those that would lie on each other get rows of their own."""
    here = {place.name for place in plan.layers.layers[number]}
    gathered: dict[tuple[str, str], list[float]] = {}
    for text, source, following in plan.labels:
        if source in here:
            middle = (plan.boxes[source].x + plan.boxes[following].x) / 2
            gathered.setdefault((source, text), []).append(middle)
    labels = [_Label(text, sum(places) / len(places)) for (_, text), places in gathered.items()]
    ends: list[float] = []  # of each row
    for label in sorted(labels, key=lambda label: label.x):
        start = label.x - label.width / 2
        label.row = next((row for row, end in enumerate(ends) if end <= start), len(ends))
        ends[label.row : label.row + 1] = [label.x + label.width / 2]
    return labels


def _place_down(plan: _Plan, steps: Sequence[Sequence[_Label]]) -> float:
    """Answers the height of all."""
    top = float(_MARGIN)
    bottom = top
    for layer, labels in zip(plan.layers.layers, steps, strict=True):
        bottom = top + max(plan.boxes[place.name].height for place in layer)
        for place in layer:
            box = plan.boxes[place.name]
            box.top, box.bottom = top, bottom if place.dummy else top + box.height
        rows = max((label.row for label in labels), default=-1) + 1
        top = bottom + _LEAST_STEP + rows * _LABEL_STEP
    return bottom + _MARGIN


def _lines(plan: _Plan) -> list[str]:
    drawn = []
    for segment in plan.layers.segments:
        start, end = plan.boxes[segment.source], plan.boxes[segment.target]
        middle = (start.bottom + end.top) / 2
        style = "line" if segment.triggers else "line read"
        way = f"M{start.x:.1f},{start.bottom:.1f} C{start.x:.1f},{middle:.1f} {end.x:.1f},{middle:.1f} {end.x:.1f},"
        if end.lines:
            drawn.append(f'<path class="{style}" d="{way}{end.top:.1f}" marker-end="url(#head)"/>')
        else:  # and on, past the boxes of its layer
            drawn.append(f'<path class="{style}" d="{way}{end.top:.1f} V{end.bottom:.1f}"/>')
    return drawn


def _names(plan: _Plan, steps: Sequence[Sequence[_Label]]) -> list[str]:
    drawn = []
    for layer, labels in zip(plan.layers.layers, steps, strict=True):
        bottom = max(plan.boxes[place.name].bottom for place in layer)
        for label in labels:
            y = bottom + _LEAST_STEP / 2 + label.row * _LABEL_STEP + 4
            drawn.append(f'<text class="dataset" x="{label.x:.1f}" y="{y:.1f}">{escape(label.text)}</text>')
    return drawn


def _drawn(box: _Box) -> str:
    left = box.x - box.width / 2
    parts = [
        f'<rect class="job {box.kind}" x="{left:.1f}" y="{box.top:.1f}" width="{box.width:.1f}"'
        f' height="{box.height:.1f}" rx="7"/>'
    ]
    for number, line in enumerate(box.lines):
        y = box.top + _PADDING + _LINE * number + 11
        style = "name" if number == 0 else "what"
        parts.append(f'<text class="{style}" x="{left + _PADDING:.1f}" y="{y:.1f}">{escape(line)}</text>')
    return "<g>" + "".join(parts) + "</g>"
