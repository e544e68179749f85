"""YAML text to a `DagSpec`, with the place of everything in it. What the spec means is not looked at here."""

from dispatcher.dag.compose import Limits, compose
from dispatcher.dag.messages import MessageReader
from dispatcher.dag.problems import Findings, Position
from traceapi.types.v1.dag_pb2 import DagSpec


def read_text(text: str, findings: Findings, limits: Limits | None = None) -> DagSpec | None:
    """The spec as far as the text can be read; problems go to `findings`. None where there is nothing to go on with."""
    root = compose(text, findings, limits)
    if root is None:
        if not findings.problems:
            findings.add(Position(1, 1), (), "the document is empty", "begin with `dag: name`")
        return None
    if root.tag != "map":
        remedy = "begin with `dag: name` and `jobs:`"
        findings.add(root.position, (), "the document is no mapping", remedy)
        return None
    findings.places.add((), root.position, root.position)
    spec = DagSpec()
    MessageReader(findings).read(root, spec, ())
    return spec
