"""Reads a document, as text or as a message, and says all that is wrong with it or what it means."""

from dispatcher.dag.checks import operator_of
from dispatcher.dag.document import read_text
from dispatcher.dag.effective import local_paths
from dispatcher.dag.model import KnownDatasets, LocalPath, Reading
from dispatcher.dag.problems import Findings, Places
from dispatcher.dag.resolve import resolve
from dispatcher.dag.rules import check_rules
from traceapi.types.v1.dag_pb2 import DagSpec


def read_document(text: str, file_name: str, known: KnownDatasets) -> Reading:
    """Reads YAML text. `file_name` only goes into the problems; nothing is opened."""
    findings = Findings(Places(text), file_name)
    spec = read_text(text, findings)
    if spec is None:
        return Reading(findings.problems, None, None, more_problems=findings.full)
    return _reading(spec, known, findings)


def read_spec(spec: DagSpec, known: KnownDatasets) -> Reading:
    """Reads a message. Its problems have no line and column, only the path."""
    return _reading(spec, known, Findings(Places()))


def _reading(spec: DagSpec, known: KnownDatasets, findings: Findings) -> Reading:
    check_rules(spec, findings)
    resolved = resolve(spec, known, findings)
    return Reading(findings.problems, spec, resolved, _local_paths(spec, findings.places), findings.full)


def _local_paths(spec: DagSpec, places: Places) -> tuple[LocalPath, ...]:
    quiet = Findings(Places())  # what is wrong with the operator has been said
    found: list[LocalPath] = []
    for name in sorted(spec.jobs):
        job = spec.jobs[name]
        found += local_paths(name, job, operator_of(job, quiet), places)
    return tuple(found)
