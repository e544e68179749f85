"""Hostile documents: whatever they say, they are answered soon, in little memory, by problems and no exception."""

import random
import time
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dispatcher.dag import size
from tests.dispatcher.dag.documents import EXAMPLE, expect, foreign, known, read
from traceapi.types.v1.dag_pb2 import OutputSpec

EXAMPLE_TEXT = (Path(__file__).parents[3] / EXAMPLE).read_text()
LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 9)}]\n" for level in range(1, 12)
)
LONG = "x" * 60_000

BOMBS = {
    "billion laughs": LAUGHS,
    "billion laughs as SQL": "dag: x\njobs:\n"
    + f"  j0: {{virtual: {{sql: &q 'select {LONG}'}}}}\n"
    + "".join(f"  j{number}: {{virtual: {{sql: *q}}}}\n" for number in range(1, 900)),
    "deep lists": "[" * 200_000,
    "deep mappings": "{a: " * 100_000,
    "deep keys": "? " * 100_000,
    "deep dashes": "- " * 200_000,
    "many values": "a: [" + "b, " * 300_000 + "]",
    "many keys": "".join(f"k{number}: 1\n" for number in range(60_000)),
    "many aliases": "a: &a 1\nb: [" + "*a, " * 5_000 + "]",
    "long text": "dag: " + "x" * 1_000_000,
    "long key": "x" * 900_000 + ": 1",
    "too long": "#" + "x" * (1 << 20),
    "long number": "dag: x\njobs: {a: {inputs: {b: {lookback: " + "9" * 500_000 + "}}}}",
    "many sexagesimals": "dag: " + "1:" * 400_000 + "1.",
    "merges of merges": "a0: &a0 {k: 1}\n"
    + "".join(f"a{n}: &a{n} {{<<: [*a{n - 1}, *a{n - 1}]}}\n" for n in range(1, 30)),
    "many unknown inputs": "dag: x\njobs:\n"
    + "".join(
        f"  j{n}: {{operator: splitter, inputs: {{dataset_{n}: {{}}}}, outputs: {{data_{n}: {{}}}}}}\n"
        for n in range(2000)
    ),
    "one knot": "dag: x\njobs:\n"
    + "".join(
        f"  j{n}: {{operator: splitter, inputs: {{d{(n + 1) % 1500}: {{}}}}, outputs: {{d{n}: {{}}}}}}\n"
        for n in range(1500)
    ),
}


@pytest.mark.parametrize("name", BOMBS)
def test_bomb_is_answered_soon(name: str) -> None:
    started = time.monotonic()
    assert read(BOMBS[name]).problems
    assert time.monotonic() - started < 20


@pytest.mark.parametrize("name", ["billion laughs", "billion laughs as SQL", "many aliases", "merges of merges"])
def test_what_aliases_stand_for_is_never_in_memory(name: str) -> None:
    tracemalloc.start()
    assert read(BOMBS[name]).problems
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 50 << 20


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: " + "[" * 31 + "‸[", "nested more than 32 deep"),
        ("‸a: " + "x" * (1 << 20), "the document has 1,048,579 bytes, and 1,048,576 are allowed; split it"),
        ("a: &a x\nb: [" + "*a, " * 1000 + "‸*a]", "more than 1000 aliases; write the values out"),
        (
            "a: &a [" + "x, " * 999 + "x]\nb: [" + "*a, " * 98 + "‸*a, *a]",
            "more than 100,000 values, aliases written out",
        ),
        (
            "a: &a " + "x" * 500_000 + "\nb: [" + "*a, " * 7 + "‸*a, *a]",
            "more than 4,194,304 bytes, aliases written out",
        ),
        ("a: &a " + "[" * 20 + "]" * 20 + "\nb: " + "[" * 20 + "‸*a" + "]" * 20, "nested more than 32 deep"),
    ],
)
def test_limit_is_reported_where_it_is_exceeded(text: str, message: str) -> None:
    expect(text, [message])


def test_expensive_sql_is_not_evaluated_while_it_is_checked() -> None:
    started = time.monotonic()
    sql = "select repeat('x', 3000000000) as x, list_sum(range(1000000000)) as y"
    reading = read(f'dag: x\njobs:\n  a: {{virtual: {{sql: "{sql}"}}, outputs: {{v: {{}}}}}}\n')
    assert time.monotonic() - started < 10
    assert not reading.problems or "SELECT" in str(reading.problems)


YAML_TEXT = st.text(
    alphabet=st.sampled_from(list("ab:-{}[]?,&*!|>'\"%@`#<= \n\t0159.~é\u2028\ufeff\x00")), max_size=300
)
WORDS = [
    "dag:",
    "jobs:",
    "source:",
    "operator:",
    "replay",
    "sql",
    "aggregator",
    "python",
    "inputs:",
    "outputs:",
    "config:",
    "{",
    "}",
    "[",
    "]",
    ",",
    "\n",
    "  ",
    "    ",
    "a",
    "b",
    "null",
    "1",
    "-1",
    "1e400",
    "true",
    "5m",
    "size:",
    "virtual:",
    "*a",
    "&a",
    "<<:",
    "'",
    '"',
    "select",
    "from",
    "schema:",
    "cursor:",
    "int64",
    "decimal(99,1)",
    "trigger:",
    "lookback:",
    "until:",
    "execution:",
    "code:",
]


@settings(max_examples=300, deadline=5000, suppress_health_check=[HealthCheck.too_slow])
@given(st.one_of(YAML_TEXT, st.text(max_size=200), st.lists(st.sampled_from(WORDS), max_size=60).map(" ".join)))
def test_any_text_is_answered(text: str) -> None:
    reading = read(text)
    assert (reading.resolved is None) == bool(reading.problems)
    lines = text.count("\n") + text.count("\r") + text.count("\u2028") + text.count("\x85") + text.count("\u2029") + 2
    assert all(1 <= item.line <= lines and item.column >= 1 for item in reading.problems)


@settings(max_examples=250, deadline=10000, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(0, 2**32))
def test_example_with_random_faults_is_answered(seed: int) -> None:
    dice = random.Random(seed)
    text = EXAMPLE_TEXT
    for _ in range(dice.randint(1, 6)):
        lines = text.split("\n")
        at = dice.randrange(len(lines))
        change = dice.randrange(6)
        if change == 0:
            del lines[at]
        elif change == 1:
            lines.insert(at, lines[dice.randrange(len(lines))])
        elif change == 2:
            lines[at] = "  " + lines[at]
        elif change == 3 and lines[at]:
            column = dice.randrange(len(lines[at]))
            lines[at] = lines[at][:column] + dice.choice(list("{}[]:,'\"x0-&*é\t")) + lines[at][column:]
        elif change == 4:
            words = lines[at].split(" ")
            words[dice.randrange(len(words))] = dice.choice(WORDS).replace("\n", "")
            lines[at] = " ".join(words)
        else:
            lines[at] = lines[at][: len(lines[at]) // 2]
        text = "\n".join(lines)
    reading = read(text)
    assert (reading.resolved is None) == bool(reading.problems)
    assert all(item.line >= 1 and item.column >= 1 and item.message and item.remedy for item in reading.problems)


def _fans(jobs: int, triggers: int) -> str:
    """A source, and jobs that are triggered by the datasets of the `triggers` before them."""
    cursor = "{column: number, type: int64}"
    lines = [
        "dag: x",
        "jobs:",
        f"  j0: {{source: replay, config: {{path: /b.csv, cursor: number}}, outputs: {{d0: {{cursor: {cursor}}}}}}}",
    ]
    for number in range(1, jobs):
        inputs = ", ".join(f"d{other}: {{}}" for other in range(max(0, number - triggers), number))
        lines.append(
            f"  j{number}: {{operator: python, runtime: python3.11, code: {{bundle: ./a, entrypoint: 'a:b'}},"
            f" inputs: {{{inputs}}}, outputs: {{d{number}: {{}}}}}}"
        )
    return "\n".join(lines) + "\n"


def test_a_document_that_could_not_go_active_in_one_transaction_is_refused_with_its_rows() -> None:
    assert not read(_fans(1_665, 2)).problems, "4,999 rows"
    expect(
        _fans(1_666, 2).replace("jobs:", "‸jobs:"),
        [
            "going active takes 5,002 rows in one transaction (datasets: 1,666, inputs that trigger: 3,329, sources: 1,"
            " its own: 6), and 5,000 are allowed; move jobs to other DAGs"
        ],
    )


def test_a_virtual_node_of_more_datasets_than_one_transaction_stores_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The limit is small here, so that the document may be."""
    monkeypatch.setattr(size, "MAX_ROWS", 40)
    names = [f"d{number}" for number in range(36)]
    sql = f"select 1::int8 as one from {', '.join(names)}"  # noqa: S608
    known_ones = known(*(foreign(name, OutputSpec(schema={"number": "int64"})) for name in names))
    expect(
        f"dag: x\njobs:\n  ‸v: {{virtual: {{sql: '{sql}'}}, outputs: {{v: {{}}}}}}\n",
        ["storing `v` takes 41 rows in one transaction, and 40 are allowed; let its SQL name fewer datasets"],
        known_ones,
    )
