"""Faults of the text itself and of its shape: each with its line and column, and all of a document at once."""

import pytest

from dispatcher.dag import KnownDatasets, read_spec
from tests.dispatcher.dag.documents import expect, marks, read
from traceapi.types.v1.dag_pb2 import DagSpec

TEXT = [
    pytest.param("‸", "the document is empty; begin with", id="empty"),
    pytest.param("‸- a\n- b\n", "the document is no mapping", id="list"),
    pytest.param("dag: x\njobs: {a: [1, 2\n‸", "this is not YAML", id="unclosed"),
    pytest.param("dag: a‸: b\n", "this is not YAML: mapping values are not allowed", id="colon"),
    pytest.param("dag: x\n‸---\ndag: y\n", "a second document begins here; keep one DAG", id="two-documents"),
    pytest.param("dag: x\ndescription: ab‸\x07c\n", "this is not YAML: control characters", id="control-character"),
    pytest.param("dag: ‸*name\n", "nothing before has the anchor `&name`; define it above", id="unknown-alias"),
    pytest.param("dag: x\njobs: &a {b: ‸*a}\n", "`*a` stands inside of what it stands for", id="recursive-alias"),
    pytest.param("dag: ‸!!python/name:os.system x\n", "has no meaning here; take it out", id="tag"),
    pytest.param("dag: x\njobs: ‸!!omap {a: {}}\n", "has no meaning here; take it out", id="tag-of-mapping"),
]

SHAPE = [
    pytest.param("‸desription: x", "unknown key `desription`; did you mean `description`?", id="unknown-near"),
    pytest.param("‸zzzzzz: x", "unknown key `zzzzzz`; known keys here are `dag`, `description`", id="unknown-far"),
    pytest.param(
        "description: a\n‸description: b", "given twice, first in line 4, column 1; remove one", id="duplicate"
    ),
    pytest.param("description: ‸5", 'text is wanted here, and this is `5`; write "5" in quotes', id="number-for-text"),
    pytest.param("description: ‸no", 'and this is `no`; write "no" in quotes', id="word-that-yaml-reads"),
    pytest.param("description: ‸[a]", "text is wanted here, and this is a list; write one text", id="list-for-text"),
    pytest.param('description: ‸"a\\0b"', "the text holds a NUL character", id="nul"),
    pytest.param(
        "defaults: ‸a", "a mapping is wanted here, and this is `a`; known keys here are `execution`", id="mapping"
    ),
    pytest.param(
        "defaults: {execution: {timeout: ‸300}}",
        "a duration is wanted here, and this is `300`; say the unit",
        id="unit",
    ),
    pytest.param("defaults: {execution: {timeout: ‸5 minutes}}", "write it like `300s`", id="duration"),
    pytest.param(
        "defaults: {execution: {max_attempts: ‸three}}", "a whole number is wanted here", id="word-for-number"
    ),
    pytest.param('defaults: {execution: {max_attempts: ‸"3"}}', "without quotes", id="text-for-number"),
    pytest.param("defaults: {execution: {max_attempts: ‸010}}", "in plain decimal digits", id="octal"),
    pytest.param(
        "defaults: {execution: {max_attempts: ‸3.0}}", "a whole number is wanted here", id="float-for-integer"
    ),
    pytest.param("defaults: {execution: {max_attempts: ‸-1}}", "out of range; write a number from 0", id="negative"),
    pytest.param("defaults: {execution: {memory_bytes: ‸99999999999999999999}}", "is out of range", id="too-large"),
    pytest.param("defaults: {execution: {max_attempts: ‸101}}", "less than or equal to 100", id="limit-of-contract"),
    pytest.param("defaults: {execution: {timeout: ‸0.5s}}", "greater than or equal to 1s", id="limit-of-duration"),
    pytest.param("defaults: {execution: {queue: ‸A}}", "`A` is not allowed here; use 1 to 63 lower-case", id="pattern"),
    pytest.param("defaults: {execution: {‸quee: a}}", "unknown key `quee`; did you mean `queue`?", id="deep-unknown"),
]

JOB = """dag: x
jobs:
  a:
    source: replay
    config: {path: a.csv, cursor: n}
    outputs: {d: {cursor: {column: n, type: int64}, schema: {n: int64}}}
"""


@pytest.mark.parametrize(("text", "message"), TEXT)
def test_fault_of_the_text_is_reported_where_it_stands(text: str, message: str) -> None:
    expect(text, [message])


@pytest.mark.parametrize(("text", "message"), SHAPE)
def test_fault_of_the_shape_is_reported_where_it_stands(text: str, message: str) -> None:
    indented = "  a: {source: replay, config: {path: p, cursor: n}, outputs: {d: {cursor: {column: n, type: int64}}}}\n"
    expect(f"dag: x\njobs:\n{indented}{text}\n", [message])


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("source: replay", "‸sorce: replay", "unknown key `sorce`; did you mean `source`?"),
        ("source: replay", "source: ‸3", "text is wanted here, and this is `3`"),
        (
            "schema: {n: int64}",
            "schema: {‸on: int64, n: int64}",
            "the key on is read as true or false, and keys are text",
        ),
        (
            "schema: {n: int64}",
            "schema: {‸1: int64, n: int64}",
            'the key 1 is read as a number, and keys are text; write "1"',
        ),
        ("schema: {n: int64}", "schema: {‸[a]: int64, n: int64}", "the key is not text; write a name before the colon"),
        ("schema: {n: int64}", "schema: ‸[n]", "a mapping is wanted here, and this is a list; write `name: ...`"),
        ("schema: {n: int64}", "sort: ‸n", "a list is wanted here, and this is `n`; write `[a, b]`"),
        ("schema: {n: int64}", "sort: [n, ‸1]", 'text is wanted here, and this is `1`; write "1" in quotes'),
        (
            "schema: {n: int64}",
            "storage: ‸parket",
            "unknown word `parket`; known are `parquet`, `postgres` or `none`; did you",
        ),
        (
            "schema: {n: int64}",
            "storage: ‸[none]",
            "one of `parquet`, `postgres` or `none` is wanted here, and this is a list",
        ),
        ("schema: {n: int64}", "storage: ‸true", "unknown word `true`; known are `parquet`"),
        (
            "type: int64}, s",
            "type: ‸int46}, s",
            "unknown word `int46`; known are `int64`, `timestamp` or `string`; did you",
        ),
        (
            "    outputs:",
            "    ordered: ‸1\n    outputs:",
            "true or false is wanted here, and this is `1`; write `true`",
        ),
        (
            "cursor: n}",
            "cursor: n, until: ‸9007199254740993}",
            'kept exactly as a number; write "9007199254740993" in quotes',
        ),
        ("cursor: n}", "cursor: n, limit: ‸0x10}", "a whole number is wanted here, and this is `0x10`"),
        ("cursor: n}", "cursor: n, rate: ‸.inf}", "a finite number is wanted here, and this is `.inf`"),
        (
            "source: replay",
            "source: replay\n    ‸operator: sql",
            "`operator` beside `source`; give one of `operator`, `source`",
        ),
        ("  a:\n", "  ‸Bad:\n", "`Bad` is not allowed here; use 1 to 63 lower-case letters"),
        ("dag: x", "dag: ‸Bad", "`Bad` is not allowed here; use 1 to 63 lower-case letters"),
    ],
)
def test_fault_in_a_job_is_reported_where_it_stands(old: str, new: str, message: str) -> None:
    assert old in JOB
    expect(JOB.replace(old, new, 1), [message])


def test_all_problems_of_a_document_are_reported_at_once() -> None:
    expect(
        """dag: ‸Chain
defaults: {execution: {max_attempts: ‸0, timeout: ‸300, ‸queu: x}}
jobs:
  blocks:
    ‸sorce: replay
    config: {path: a.csv.gz, until: ‸99007199254740993}
    outputs:
      eth.blocks:
        storage: ‸parket
        ‸cursor: {column: number}
        schema: {‸no: int64, b: ‸3}
        update: replace
        ‸update: append
  ‸broken: {outputs: {q: }, ‸anything: 3}
""",
        [
            "`Chain` is not allowed",
            "greater than or equal to 1",
            "say the unit: `300s`",
            "did you mean `queue`?",
            "did you mean `source`?",
            "kept exactly",
            "did you mean `parquet`?",
            "`type` is not given; add `type:` with `int64`, `timestamp` or `string`",
            "keys are text",
            "in quotes",
            "given twice",
            "none of `source`, `operator` or `virtual` is given",
            "known keys here are `source`",
        ],
    )


def test_a_mistyped_key_is_not_also_reported_as_what_is_missing_for_it() -> None:
    expect(
        """dag: x
jobs:
  a:
    source: replay
    config: {path: a.csv, cursor: n}
    ‸output: {d: {cursor: {column: n, type: int64}}}
  b: {operator: aggregator, config: {size: 10}, inputs: {d: {}}, outputs: {r: {}}}
""",
        ["unknown key `output`; did you mean `outputs`?"],
    )


def test_merge_keys_and_anchors_are_read() -> None:
    text, _ = marks(
        """dag: x
jobs:
  a: &base
    source: replay
    config: {path: a.csv, cursor: n}
    outputs: {d: {cursor: &cursor {column: n, type: int64}}}
  b:
    <<: *base
    outputs: {e: {cursor: *cursor}}
"""
    )
    reading = read(text)
    assert not reading.problems
    assert reading.spec is not None
    assert list(reading.spec.jobs["b"].outputs) == ["e"]
    assert reading.spec.jobs["b"].config.fields["path"].string_value == "a.csv"
    assert reading.spec.jobs["b"].outputs["e"].cursor.column == "n"


def test_columns_count_characters_not_bytes() -> None:
    expect(
        JOB + "defaults: {execution: {queue: ‸äö🧱, max_attempts: 1}, ‸äö🧱: 1}\n",
        ["`äö🧱` is not allowed", "unknown key"],
    )


def test_never_more_problems_than_anybody_reads() -> None:
    lines = "\n".join(f"key{number}: 1" for number in range(5000))
    reading = read(f"dag: x\n{lines}\n")
    assert len(reading.problems) == 200
    assert reading.more_problems
    assert all(problem.line for problem in reading.problems)


LACKING = [
    pytest.param("‸jobs:\n" + JOB.partition("jobs:\n")[2], ["`dag` is not given; add `dag: name`"], id="dag"),
    pytest.param("‸dag: x\n", ["`jobs` is not given; add `jobs:` with one job at least below it"], id="jobs"),
    pytest.param("dag: x\njobs: ‸{}\n", ["there is nothing in it; write at least 1 entry"], id="no-job"),
    pytest.param("dag: ‸''\n" + JOB.partition("\n")[2], ["the text is empty; use 1 to 63 lower-case"], id="empty-name"),
    pytest.param(
        "‸‸description: x\n", ["`dag` is not given; add `dag: name`", "`jobs` is not given; add `jobs:`"], id="both"
    ),
    pytest.param(
        JOB.replace("cursor: {column: n, ", "‸cursor: {"),
        ["`column` is not given; add `column: ...`"],
        id="deep",
    ),
]


@pytest.mark.parametrize(("text", "messages"), LACKING)
def test_what_a_document_lacks_is_named_with_what_to_add(text: str, messages: list[str]) -> None:
    expect(text, messages)


def test_what_a_message_lacks_is_named_as_in_a_document() -> None:
    shown = {(problem.path, problem.message) for problem in read_spec(DagSpec(), KnownDatasets()).problems}
    assert shown == {("dag", "`dag` is not given"), ("jobs", "`jobs` is not given")}
