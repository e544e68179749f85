"""Documents for tests. In a text `‸` marks where a problem is expected; `expect` takes the marks out and compares."""

from collections.abc import Iterable
from pathlib import Path

from dispatcher.dag import KnownDataset, KnownDatasets, Reading, ResolvedJob, read_document
from traceapi.types.v1.dag_pb2 import OutputSpec

EXAMPLE = Path("examples/ethereum/dag.yaml")
MARK = "‸"
NOTHING_KNOWN = KnownDatasets()

# A source, ranges over it, and places for a test's own jobs.
BLOCKS = """\
dag: chain
jobs:
  blocks:
    source: replay
    config: {path: blocks.csv, cursor: number}
    outputs:
      blocks: {cursor: {column: number, type: int64}, schema: {number: int64, hash: string, gas: int64}}
  ranges: {operator: aggregator, inputs: {blocks: {}}, config: {size: 100}, outputs: {ranges: {}}}
"""


def read(text: str, known: KnownDatasets = NOTHING_KNOWN) -> Reading:
    return read_document(text, "dag.yaml", known)


def job_of(reading: Reading, name: str) -> ResolvedJob:
    """A job of a document that has no problems."""
    assert not reading.problems, [str(problem) for problem in reading.problems]
    assert reading.resolved is not None
    return next(job for job in reading.resolved.jobs if job.name == name)


def marks(text: str) -> tuple[str, list[tuple[int, int]]]:
    """The text without its marks, and their places."""
    places = []
    while MARK in text:
        before = text[: text.index(MARK)]
        places.append((before.count("\n") + 1, len(before) - before.rfind("\n")))
        text = text.replace(MARK, "", 1)
    return text, places


def expect(marked: str, messages: Iterable[str], known: KnownDatasets = NOTHING_KNOWN) -> None:
    """Exactly one problem at each mark, in order, its text beginning or ending with the message given for it.

    A message is `message; remedy`, as far as the test cares.
    """
    text, places = marks(marked)
    reading = read(text, known)
    shown = [f"{item.line}:{item.column} {item.message}; {item.remedy}" for item in reading.problems]
    assert [(item.line, item.column) for item in reading.problems] == places, shown
    for problem, message in zip(reading.problems, messages, strict=True):
        assert message in f"{problem.message}; {problem.remedy}", shown
        assert problem.remedy
        assert problem.file_name == "dag.yaml"
    assert reading.resolved is None


def known(*datasets: KnownDataset) -> KnownDatasets:
    return KnownDatasets(datasets)


def foreign(
    dataset_id: str, spec: OutputSpec | None = None, virtual_sql: str = "", dependencies: tuple[str, ...] = ()
) -> KnownDataset:
    """A dataset of the DAG `other`."""
    return KnownDataset(dataset_id, "other", spec or OutputSpec(), virtual_sql, dependencies, fingerprint=b"f" * 32)
