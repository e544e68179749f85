"""A document with many faults hears of all of them: one must not hide another elsewhere."""

from dispatcher.dag.model import KnownDatasets
from dispatcher.dag.reading import read_document

DOCUMENT = """\
dag: faulty
jobs:
  numbers:
    source: replay
    config: {path: x.csv, cursor: number}
    outputs:
      d.numbers: {cursor: {column: number, type: int64}, schema: {number: int64}}
  ranges:
    descriptoin: a typo
    operator: aggregator
    config: {size: 0}
    inputs: {d.missing: {}}
    outputs: {d.ranges: {storage: none}}
  reads:
    operator: sql
    config: {sql: 'select nope as number from "d.numbers"'}
    inputs: {d.numbers: {}}
    outputs: {d.reads: {storage: parket}}
  left:
    operator: splitter
    inputs: {d.right: {}}
    outputs: {d.left: {storage: none}}
  right:
    operator: splitter
    inputs: {d.left: {}}
    outputs: {d.right: {storage: none}}
"""


def test_every_fault_is_named_with_its_place() -> None:
    problems = read_document(DOCUMENT, "dag.yaml", KnownDatasets()).problems
    places = {(problem.line, problem.path) for problem in problems}
    assert (9, "jobs.ranges.descriptoin") in places
    assert (11, "jobs.ranges.config.size") in places
    assert (16, "jobs.reads.config.sql") in places
    assert (18, 'jobs.reads.outputs."d.reads".storage') in places
    assert any("cycle" in problem.message for problem in problems)


def test_a_typo_elsewhere_does_not_hide_a_missing_input() -> None:
    readable = DOCUMENT.replace("parket", "parquet")
    problems = read_document(readable, "dag.yaml", KnownDatasets()).problems
    assert any("d.missing" in problem.message for problem in problems)
