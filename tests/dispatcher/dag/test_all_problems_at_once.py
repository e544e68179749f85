"""A document with many faults hears of all of them: one must not hide another elsewhere."""

import pytest

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
    assert (12, 'jobs.ranges.inputs."d.missing"') in places
    assert any("cycle" in problem.message for problem in problems)


@pytest.mark.parametrize("unread", ["{d.missing: 5}", "5", "[d.missing]"])
def test_what_could_not_be_read_may_produce_what_looks_missing(unread: str) -> None:
    text = DOCUMENT.replace("{d.reads: {storage: parket}}", unread)
    found = [problem.path for problem in read_document(text, "dag.yaml", KnownDatasets()).problems]
    assert 'jobs.ranges.inputs."d.missing"' not in found
    assert any(path.startswith("jobs.reads.outputs") for path in found)


def test_a_job_that_could_not_be_read_may_produce_what_looks_missing() -> None:
    text = DOCUMENT + "  more: 5\n"
    found = [problem.path for problem in read_document(text, "dag.yaml", KnownDatasets()).problems]
    assert "jobs.more" in found
    assert 'jobs.ranges.inputs."d.missing"' not in found


def test_every_wrong_column_type_is_named() -> None:
    text = DOCUMENT.replace("schema: {number: int64}", "schema: {number: int65, a: strng, b: int64, c: dezimal}")
    found = [problem.path for problem in read_document(text, "dag.yaml", KnownDatasets()).problems]
    columns = [path.rpartition(".")[2] for path in found if "schema" in path]
    assert columns == ["number", "a", "c"]


UNKNOWN = """\
dag: faulty
jobs:
  a:
    source: {source}
    config: {{pth: x.csv, cursor: number}}
    execution: {{timeout: 5s}}
    outputs:
      d.numbers: {{cursor: {{column: numbr, type: int64}}, schema: {{number: int65}}}}
  b:
    operator: {operator}
    config: {{sql: 'selec 1'}}
    inputs: {{d.numbers: {{}}, d.missing: {{}}}}
    runtime: python2
    execution: {{retry_backoff: 2s, max_retry_backoff: 1s}}
    outputs: {{d.reads: {{storage: postgres}}}}
"""
# Problems that stand whatever the implementation is.
ALWAYS = {
    "jobs.a.source",
    "jobs.a.execution.timeout",
    'jobs.a.outputs."d.numbers".schema.number',
    "jobs.b.operator",
    'jobs.b.inputs."d.missing"',
    "jobs.b.execution.retry_backoff",
    'jobs.b.outputs."d.reads".storage',
}


def test_an_unknown_implementation_does_not_hide_the_other_problems_of_its_job() -> None:
    text = UNKNOWN.format(source="zzz", operator="spark")
    found = [problem.path for problem in read_document(text, "dag.yaml", KnownDatasets()).problems]
    assert sorted(found) == sorted([*ALWAYS, "jobs.b.runtime"])


def test_a_misspelled_implementation_is_taken_for_what_is_meant() -> None:
    text = UNKNOWN.format(source="repaly", operator="SQL")
    found = [problem.path for problem in read_document(text, "dag.yaml", KnownDatasets()).problems]
    assert sorted(found) == sorted(
        [*ALWAYS, "jobs.a.config.pth", "jobs.a.config.cursor", "jobs.b.config.sql", "jobs.b.runtime"]
    )


def test_an_implementation_of_another_kind_does_not_hide_the_other_problems_of_its_job() -> None:
    text = UNKNOWN.format(source="zzz", operator="spark").replace("source: zzz", "operator: replay")
    found = [problem.path for problem in read_document(text, "dag.yaml", KnownDatasets()).problems]
    assert "jobs.a.operator" in found
    assert "jobs.a.config.pth" in found


def test_a_job_of_no_kind_hears_of_its_other_problems() -> None:
    text = UNKNOWN.format(source="zzz", operator="spark").replace("    operator: spark\n", "")
    found = [problem.path for problem in read_document(text, "dag.yaml", KnownDatasets()).problems]
    assert sorted(found) == sorted([*(ALWAYS - {"jobs.b.operator"}), "jobs.b", "jobs.b.runtime"])


def test_nothing_is_concluded_from_a_job_that_nobody_knows() -> None:
    text = """\
dag: faulty
jobs:
  a: {operator: spark, inputs: {n: {}}, outputs: {r: {}}}
  b: {operator: aggregator, config: {size: 5}, inputs: {r: {}}, outputs: {s: {}}}
  n: {source: replay, config: {path: p, cursor: n}, outputs: {n: {cursor: {column: n, type: string}}}}
"""
    problems = read_document(text, "dag.yaml", KnownDatasets()).problems
    assert [problem.path for problem in problems] == ["jobs.a.operator"]


@pytest.mark.parametrize("size", ["abc", "0", "1.5", "-3s", "1ns", "[1]"])
def test_of_a_trigger_that_nobody_knows_no_type_is_said(size: str) -> None:
    text = UNKNOWN.format(source="zzz", operator="aggregator").replace(
        "config: {sql: 'selec 1'}", f"config: {{size: {size}}}"
    )
    problems = read_document(text, "dag.yaml", KnownDatasets()).problems
    (found,) = [problem for problem in problems if problem.path == "jobs.b.config.size"]
    assert found.message.startswith(
        "a whole number from 1 or a duration of whole microseconds is wanted here, and this"
    )
    assert found.remedy == ("write it as the trigger's cursor is: like `100`, or like `1h` where that is a timestamp")


@pytest.mark.parametrize("size", ["7", "1h"])
def test_a_size_that_can_be_right_is_no_problem(size: str) -> None:
    text = UNKNOWN.format(source="zzz", operator="aggregator").replace(
        "config: {sql: 'selec 1'}", f"config: {{size: {size}}}"
    )
    found = [problem.path for problem in read_document(text, "dag.yaml", KnownDatasets()).problems]
    assert "jobs.b.config.size" not in found


def test_two_producers_of_a_dataset_are_one_problem() -> None:
    text = """\
dag: faulty
jobs:
  a: {source: replay, config: {path: p, cursor: n}, outputs: {n: {cursor: {column: n, type: string}}}}
  b: {source: replay, config: {path: p, cursor: m}, outputs: {n: {cursor: {column: m, type: int64}}}}
"""
    problems = read_document(text, "dag.yaml", KnownDatasets()).problems
    assert [problem.path for problem in problems] == ["jobs.b.outputs.n"]
