"""YAML text to a `DagSpec`, with the place of everything in it. What the spec means is not looked at here."""

from dispatcher.dag.compose import Limits, compose
from dispatcher.dag.messages import MessageReader
from dispatcher.dag.problems import Findings, Places, Position
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
    _keep_column_order(spec, findings.places)
    return spec


def _keep_column_order(spec: DagSpec, places: Places) -> None:
    """A mapping of the text has an order and a map of the message none: what the text does not state is the order in
    which it is written."""
    for name, job in spec.jobs.items():
        for dataset_id, output in job.outputs.items():
            stated = places.has(("jobs", name, "outputs", dataset_id, "column_order"))
            if not stated:
                written = places.keys_below(("jobs", name, "outputs", dataset_id, "schema"))
                output.column_order.extend(column for column in written if column in output.schema)
