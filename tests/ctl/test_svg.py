"""The picture of a DAG as SVG: well-formed, with everything in it, and nothing on top of anything else."""

import itertools
import re
from dataclasses import dataclass
from pathlib import Path
from xml.parsers import expat

from google.protobuf import json_format
from hypothesis import given, settings
from hypothesis import strategies as st

from ctl.render.svg import draw_svg
from tests.ctl.canned import SPEC, Canned
from tests.ctl.conftest import Run
from traceapi.types.v1 import dag_pb2

_JOBS = [f"job{number}" for number in range(9)]


@dataclass
class Element:
    """An element of the file, with the text that follows its start."""

    tag: str
    attributes: dict[str, str]
    text: str = ""


def parsed(spec: dag_pb2.DagSpec) -> list[Element]:
    """Its elements; fails where it is not well-formed."""
    found: list[Element] = []

    def add_text(text: str) -> None:
        found[-1].text += text.strip("\n")

    parser = expat.ParserCreate()
    parser.StartElementHandler = lambda tag, attributes: found.append(Element(tag, attributes))
    parser.CharacterDataHandler = add_text
    parser.Parse(draw_svg(spec), True)
    return found


def texts(elements: list[Element], style: str) -> list[str]:
    return [each.text for each in elements if each.tag == "text" and each.attributes.get("class") == style]


def kinds(elements: list[Element]) -> list[str]:
    return sorted(each.attributes["class"] for each in elements if each.tag == "rect")


def boxes(elements: list[Element]) -> list[tuple[float, float, float, float]]:
    """Left, top, right, bottom of each job."""
    found = []
    for each in elements:
        if each.tag == "rect" and each.attributes["class"] != "ground":
            x, y, width, height = (float(each.attributes[name]) for name in ("x", "y", "width", "height"))
            found.append((x, y, x + width, y + height))
    return found


def test_every_job_has_a_box_of_its_kind_and_every_dataset_a_name() -> None:
    root = parsed(json_format.ParseDict(SPEC, dag_pb2.DagSpec()))
    assert sorted(texts(root, "name")) == sorted(SPEC["jobs"])
    assert kinds(root) == ["ground", "job operator", "job operator", "job source", "job virtual"]
    assert set(texts(root, "dataset")) == {"eth.blocks", "eth.block_ranges"}
    assert {"▸ eth.checked", "▸ eth.miners", "replay", "virtual"} <= set(texts(root, "what"))


def test_what_only_reads_is_dashed_and_what_another_dag_has_is_a_box() -> None:
    spec = dag_pb2.DagSpec(dag="x")
    spec.jobs["a"].operator = "sql"
    spec.jobs["a"].inputs["theirs"].SetInParent()
    spec.jobs["a"].inputs["other <&>"].trigger = False
    spec.jobs["a"].outputs["a"].SetInParent()
    root = parsed(spec)
    assert sorted(texts(root, "name")) == ["a", "other <&>", "theirs"]
    assert kinds(root) == ["ground", "job foreign", "job foreign", "job operator"]
    assert sorted(each.attributes["class"] for each in root if each.tag == "path") == ["head", "line", "line read"]


@settings(max_examples=40, deadline=None)
@given(st.sets(st.sampled_from(list(itertools.combinations(_JOBS, 2)))))
def test_boxes_of_any_graph_stand_apart_inside_the_picture_below_what_they_read(pairs: set[tuple[str, str]]) -> None:
    jobs = {
        name: {
            "operator": "sql",
            "inputs": {source: {} for source, target in pairs if target == name},
            "outputs": {name: {}},
        }
        for name in _JOBS
    }
    root = parsed(json_format.ParseDict({"dag": "any", "jobs": jobs}, dag_pb2.DagSpec()))
    found = boxes(root)
    _, _, width, height = (float(part) for part in root[0].attributes["viewBox"].split())
    assert len(found) == len(_JOBS)
    assert all(
        left >= 0 and top >= 0 and right <= width + 1 and bottom <= height + 1 for left, top, right, bottom in found
    )
    for one, other in itertools.combinations(found, 2):
        assert one[2] < other[0] or other[2] < one[0] or one[3] < other[1] or other[3] < one[1]
    top = dict(zip(texts(root, "name"), (box[1] for box in found), strict=True))
    assert all(top[source] < top[target] for source, target in pairs)


def test_names_of_datasets_do_not_lie_on_each_other() -> None:
    wide: dict[str, dict[str, str]] = {f"a_dataset_with_quite_a_long_name_{number}": {} for number in range(6)}
    jobs = {"all": {"operator": "splitter", "outputs": wide}}
    jobs |= {
        f"j{n}": {"operator": "sql", "inputs": {name: {}}, "outputs": {f"o{n}": {}}} for n, name in enumerate(wide)
    }
    root = parsed(json_format.ParseDict({"dag": "any", "jobs": jobs}, dag_pb2.DagSpec()))
    labels = [each for each in root if each.attributes.get("class") == "dataset"]
    assert len(labels) == 6
    for one, other in itertools.combinations(labels, 2):
        apart = abs(float(one.attributes["x"]) - float(other.attributes["x"]))
        assert one.attributes["y"] != other.attributes["y"] or apart > 7.3 * len(one.text)


def test_a_long_name_of_a_dataset_is_inside_the_picture() -> None:
    name = "d" * 200
    jobs = {
        "a": {"operator": "splitter", "outputs": {name: {}}},
        "b": {"operator": "splitter", "inputs": {name: {}}, "outputs": {"b": {}}},
    }
    root = parsed(json_format.ParseDict({"dag": "any", "jobs": jobs}, dag_pb2.DagSpec()))
    (label,) = (each for each in root if each.attributes.get("class") == "dataset")
    assert float(label.attributes["x"]) > 7.3 * 100
    assert float(root[0].attributes["width"]) > 7.3 * 200


def test_show_writes_the_picture(run: Run, canned: Canned, tmp_path: Path) -> None:
    file = tmp_path / "dag.svg"
    result = run("dag", "show", "ethereum", "--svg", str(file))
    assert result.exit_code == 0, result.stderr
    assert str(file) in re.sub(r"\s", "", result.stderr)
    assert file.read_text(encoding="utf-8").startswith("<svg ")
    assert "blocks  replay" in result.stdout
    missing = run("dag", "show", "ethereum", "--svg", str(tmp_path / "none" / "dag.svg"))
    assert missing.exit_code == 2
    assert "cannot write the picture" in missing.stderr
