"""The datasets of a document: what they may be called, who produces them, and how their readers see them."""

import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from dispatcher.dag.model import KnownDatasets
from dispatcher.dag.problems import Findings, Path, clip
from traceapi.types.v1.dag_pb2 import DagSpec, OutputSpec, Writers

MAX_ID_BYTES = 255


@dataclass(frozen=True, slots=True)
class Relation:
    """A dataset as its readers see it. Where `certain` is false its producer has problems, and nothing is concluded."""

    dataset_id: str
    spec: OutputSpec
    virtual_sql: str = ""
    dependencies: tuple[str, ...] = ()  # of a virtual dataset: those that its SQL names
    certain: bool = True


class Names:
    """Names of datasets, found whatever their upper and lower case: SQL does not tell it apart."""

    def __init__(self, names: Iterable[str]) -> None:
        self._names = sorted(names)
        self._spelled = {name.casefold(): name for name in self._names}

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self._spelled.get(name.casefold()) == name

    def find(self, name: str) -> str | None:
        """The name as it is declared, or None."""
        return self._spelled.get(name.casefold())


def producers(spec: DagSpec) -> dict[str, tuple[str, ...]]:
    """The jobs that produce each dataset of the document, by name."""
    found: dict[str, list[str]] = {}
    for name in sorted(spec.jobs):
        for dataset_id in spec.jobs[name].outputs:
            found.setdefault(dataset_id, []).append(name)
    return {dataset_id: tuple(names) for dataset_id, names in found.items()}


def known_relations(spec: DagSpec, known: KnownDatasets) -> dict[str, Relation]:
    """The datasets of other DAGs, as readers see them."""
    return {
        dataset_id: Relation(dataset_id, dataset.spec, dataset.virtual_sql, dataset.dependencies)
        for dataset_id, dataset in known.items()
        if dataset.dag != spec.dag
    }


def check_datasets(spec: DagSpec, known: KnownDatasets, findings: Findings) -> None:
    """Reports ids that are not allowed, datasets that others own, and datasets that several jobs produce."""
    in_order = sorted(
        ((name, dataset_id) for name in spec.jobs for dataset_id in spec.jobs[name].outputs),
        key=lambda item: (findings.places.key(("jobs", item[0], "outputs", item[1])), item),
    )
    spelled: dict[str, str] = {}
    first: dict[str, str] = {}
    for name, dataset_id in in_order:
        path: Path = ("jobs", name, "outputs", dataset_id)
        if fault := id_fault(dataset_id):
            findings.at_key(path, *fault)
            continue
        other = spelled.setdefault(dataset_id.casefold(), dataset_id)
        if other != dataset_id:
            message = f"`{clip(dataset_id)}` and `{clip(other)}` differ in upper and lower case only"
            findings.at_key(path, message, "give one of them another name")
        _check_owner(spec.dag, dataset_id, known, path, findings)
        if dataset_id in first:
            _check_writers(spec, dataset_id, (first[dataset_id], name), findings)
        first.setdefault(dataset_id, name)


def id_fault(dataset_id: str) -> tuple[str, str] | None:
    """What is wrong with a dataset id and what would be right, or None."""
    size = len(dataset_id.encode())
    if not size:
        return "the dataset has no name", "write one"
    if size > MAX_ID_BYTES:
        return f"the dataset's name has {size} bytes", f"use at most {MAX_ID_BYTES}"
    if any(unicodedata.category(character) == "Cc" for character in dataset_id):
        return "the dataset's name holds a control character", "take it out"
    if not unicodedata.is_normalized("NFC", dataset_id):
        normal = unicodedata.normalize("NFC", dataset_id)
        return "the dataset's name is not in Unicode's normal form NFC", f"write `{clip(normal)}`, composed"
    return None


def _check_owner(dag: str, dataset_id: str, known: KnownDatasets, path: Path, findings: Findings) -> None:
    spelling = known.spelled(dataset_id)
    if spelling is None or known[spelling].dag == dag:
        return
    owner = known[spelling].dag
    if spelling == dataset_id:
        message = f"the DAG `{owner}` produces `{clip(dataset_id)}`, and two DAGs never produce one dataset"
        remedy = f"choose another name, or read it as an input, or change `{owner}`"
        findings.at_key(path, message, remedy, owned=True)
    else:
        message = f"`{clip(dataset_id)}` and `{spelling}` of the DAG `{owner}` differ in upper and lower case only"
        findings.at_key(path, message, "choose another name", owned=True)


def _check_writers(spec: DagSpec, dataset_id: str, names: tuple[str, str], findings: Findings) -> None:
    """Reports at the second of two producers; one that declares `writers: many` wants it of the other too."""
    lacking = [name for name in names if spec.jobs[name].outputs[dataset_id].writers != Writers.WRITERS_MANY]
    path: Path = ("jobs", names[1], "outputs", dataset_id)
    if not lacking or any(findings.broken(("jobs", name, "outputs", dataset_id)) for name in names):
        return
    where = " and ".join(f"`{name}`" for name in lacking)
    message = f"the jobs `{names[0]}` and `{names[1]}` both produce `{clip(dataset_id)}`"
    findings.at_key(path, message, f"produce it in one job, or say `writers: many` for it in {where}")
