"""A DAG as a picture of characters: a box per job, layers from the sources down, lines where a dataset flows.

`layers` says what stands beside and above what. Edges are routed between the layers, each with a horizontal piece on a
row of its own. Read-only edges are dashed, because they cause no tasks.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich.console import Group, RenderableType
from rich.text import Text

from ctl.render.layers import Edge, Place, arrange, edges_of, layers_of
from ctl.render.values import NOTHING
from traceapi.types.v1 import dag_pb2

_GAP = 3


@dataclass(slots=True)
class _Box:
    """A job, or (without lines) a place where a long edge passes."""

    name: str
    layer: int
    lines: Sequence[Text] = ()
    solid: bool = True
    column: int = 0

    @property
    def width(self) -> int:
        return max(line.cell_len for line in self.lines) + 4 if self.lines else 1

    @property
    def centre(self) -> int:
        return self.column + self.width // 2


def draw(spec: dag_pb2.DagSpec, width: int, details: Mapping[str, Sequence[Text]] | None = None) -> RenderableType:
    """The picture, or where the terminal is too narrow for it a list of the same facts. `details`: lines per job."""
    edges = edges_of(spec)
    layer = layers_of(sorted(spec.jobs), edges)
    boxes = [
        _Box(job, layer[job], [*job_lines(job, spec.jobs[job]), *((details or {}).get(job, ()))])
        for job in sorted(spec.jobs)
    ]
    picture = _Picture(boxes, edges)
    return picture.render() if picture.width <= width else _listing(spec, layer, details or {})


def job_lines(name: str, job: dag_pb2.JobSpec) -> list[Text]:
    """Name and kind, then each dataset that it produces."""
    kind = job.WhichOneof("kind")
    implementation = "virtual" if kind == "virtual" else str(getattr(job, kind)) if kind else NOTHING
    title = Text(name, "name") + Text(f"  {implementation}", "hint")
    return [title, *(Text(f"▸ {dataset}", "dataset") for dataset in sorted(job.outputs))]


def _listing(spec: dag_pb2.DagSpec, layer: Mapping[str, int], details: Mapping[str, Sequence[Text]]) -> RenderableType:
    lines: list[Text] = []
    for job in sorted(spec.jobs, key=lambda name: (layer[name], name)):
        title, *outputs = job_lines(job, spec.jobs[job])
        lines.append(title)
        for dataset, put in sorted(spec.jobs[job].inputs.items()):
            reads = "◂ " if not put.HasField("trigger") or put.trigger else "◃ "
            lines.append(Text("    ") + Text(reads + dataset, "dataset"))
        lines.extend(Text("    ") + line for line in (*outputs, *details.get(job, ())))
    return Group(*lines)


class _Picture:
    def __init__(self, boxes: Sequence[_Box], edges: Sequence[Edge]) -> None:
        self._boxes = {box.name: box for box in boxes}
        arranged = arrange({box.name: box.layer for box in boxes}, edges)
        self._segments = arranged.segments
        self._layers = [[self._box(place) for place in layer] for layer in arranged.layers]
        self._place()
        self.width = max((box.column + box.width for box in self._boxes.values()), default=0)

    def _box(self, place: Place) -> _Box:
        if place.dummy:
            self._boxes[place.name] = _Box(place.name, place.layer, solid=place.solid)
        return self._boxes[place.name]

    def _place(self) -> None:
        """Side by side, each layer centred below the widest one."""
        widths = [sum(box.width for box in layer) + _GAP * (len(layer) - 1) for layer in self._layers]
        for layer, width in zip(self._layers, widths, strict=True):
            column = (max(widths) - width) // 2
            for box in layer:
                box.column = column
                column += box.width + _GAP

    def render(self) -> RenderableType:
        rows: list[Text] = []
        for number, layer in enumerate(self._layers):
            rows.extend(self._box_rows(layer))
            if number + 1 < len(self._layers):
                rows.extend(self._edge_rows(number))
        return Group(*rows)

    def _box_rows(self, layer: Sequence[_Box]) -> list[Text]:
        height = max(len(box.lines) for box in layer) + 2
        rows = []
        for number in range(height):
            row = Text(no_wrap=True, overflow="crop")
            for box in layer:
                row.pad_right(box.column - row.cell_len)
                row.append_text(_box_row(box, number, height))
            rows.append(row)
        return rows

    def _edge_rows(self, number: int) -> list[Text]:
        """The lines between a layer and the next: out of a box, across on a row of its own, into the next box."""
        segments = [segment for segment in self._segments if self._boxes[segment.source].layer == number]
        crossing = [segment for segment in segments if self._column(segment.source) != self._column(segment.target)]
        crossing.sort(key=lambda segment: (self._column(segment.source), self._column(segment.target)))
        by_source: dict[str, int] = {}
        for segment in crossing:  # edges out of one box share its row
            by_source.setdefault(segment.source, len(by_source))
        height = len(by_source) + 2
        canvas = _Canvas(height, self.width)
        for segment in segments:
            start, end = self._column(segment.source), self._column(segment.target)
            turn = by_source.get(segment.source, 0) + 1
            canvas.vertical(start, 0, turn, segment.triggers)
            canvas.horizontal(turn, start, end, segment.triggers)
            canvas.vertical(end, turn, height - 1, segment.triggers)
            if self._boxes[segment.target].lines:
                canvas.arrow(end, height - 1)
        return canvas.rows()

    def _column(self, name: str) -> int:
        return self._boxes[name].centre


def _box_row(box: _Box, number: int, height: int) -> Text:
    if not box.lines:
        return Text("│" if box.solid else _DASHED["│"], "hint")
    inner = box.width - 4
    if number == 0:
        return Text("╭" + "─" * (inner + 2) + "╮", "hint")
    if number == height - 1:
        return Text("╰" + "─" * (inner + 2) + "╯", "hint")
    line = box.lines[number - 1].copy() if number <= len(box.lines) else Text()
    line.pad_right(inner - line.cell_len)
    return Text("│ ", "hint") + line + Text(" │", "hint")


_UP, _DOWN, _LEFT, _RIGHT = 1, 2, 4, 8
_LINES = {
    _UP | _DOWN: "│",
    _UP: "│",
    _DOWN: "│",
    _LEFT | _RIGHT: "─",
    _LEFT: "─",
    _RIGHT: "─",
    _UP | _RIGHT: "╰",
    _UP | _LEFT: "╯",
    _DOWN | _RIGHT: "╭",
    _DOWN | _LEFT: "╮",
    _UP | _DOWN | _RIGHT: "├",
    _UP | _DOWN | _LEFT: "┤",
    _LEFT | _RIGHT | _DOWN: "┬",
    _LEFT | _RIGHT | _UP: "┴",
    _UP | _DOWN | _LEFT | _RIGHT: "┼",
}
_DASHED = {"│": "┆", "─": "┄"}


class _Canvas:
    """Cells that know in which directions lines leave them; where lines meet, the junction follows from that."""

    def __init__(self, height: int, width: int) -> None:
        self._cells = [[0] * width for _ in range(height)]
        self._solid = [[False] * width for _ in range(height)]
        self._arrows: set[tuple[int, int]] = set()

    def vertical(self, column: int, top: int, bottom: int, solid: bool) -> None:
        for row in range(top, bottom + 1):
            self._mark(row, column, (_UP if row > top or top == 0 else 0) | (_DOWN if row < bottom else 0), solid)
        if bottom == len(self._cells) - 1:
            self._mark(bottom, column, _UP | _DOWN, solid)

    def horizontal(self, row: int, start: int, end: int, solid: bool) -> None:
        left, right = min(start, end), max(start, end)
        for column in range(left, right + 1):
            self._mark(row, column, (_LEFT if column > left else 0) | (_RIGHT if column < right else 0), solid)

    def arrow(self, column: int, row: int) -> None:
        self._arrows.add((row, column))

    def _mark(self, row: int, column: int, directions: int, solid: bool) -> None:
        self._cells[row][column] |= directions
        self._solid[row][column] |= solid

    def rows(self) -> list[Text]:
        return [self._row(number) for number in range(len(self._cells))]

    def _row(self, number: int) -> Text:
        letters = []
        for column, directions in enumerate(self._cells[number]):
            letter = "▼" if (number, column) in self._arrows else _LINES.get(directions, " ")
            letters.append(letter if self._solid[number][column] else _DASHED.get(letter, letter))
        return Text("".join(letters).rstrip(), "hint", no_wrap=True, overflow="crop")
