"""Faults of what a document means: datasets, cycles, operators, inputs, outputs. Each with its line and column."""
# ruff: noqa: E501 -- one job a line, so that its mark can be seen

import pytest

from tests.dispatcher.dag.documents import BLOCKS, expect, foreign, known, read
from traceapi.types.v1.dag_pb2 import OutputSpec, Storage
from traceapi.types.v1.scope_pb2 import CursorType

NUMBERS = OutputSpec(storage=Storage.STORAGE_PARQUET, schema={"number": "int64"})
NUMBERS.cursor.column = "number"
NUMBERS.cursor.type = CursorType.CURSOR_TYPE_INT64

# Jobs added to BLOCKS, with the problem that each has.
JOBS = [
    # datasets
    (
        "a: {operator: aggregator, inputs: {‸block: {}}, config: {size: 9}, outputs: {r: {}}}",
        "no job of this DAG produces `block`, nor does another DAG; did you mean `blocks`?",
    ),
    ("a: {operator: aggregator, inputs: {‸Blocks: {}}, config: {size: 9}, outputs: {r: {}}}", "did you mean `blocks`?"),
    ("a: {operator: aggregator, inputs: {blocks: {}}, config: {size: 9}, outputs: {‸blocks: {}}}", None),
    (
        "a: {operator: aggregator, inputs: {blocks: {}}, config: {size: 9}, outputs: {‸ranges: {}}}",
        "the jobs `ranges` and `a` both produce `ranges`; produce it in one job, or say `writers: many` for it in",
    ),
    (
        "a: {operator: aggregator, inputs: {blocks: {}}, config: {size: 9}, outputs: {‸RANGES: {}}}",
        "`RANGES` and `ranges` differ in upper and lower case only",
    ),
    (
        'a: {operator: aggregator, inputs: {blocks: {}}, config: {size: 9}, outputs: {‸"": {}}}',
        "the dataset has no name",
    ),
    (
        'a: {operator: aggregator, inputs: {blocks: {}}, config: {size: 9}, outputs: {‸"a\\tb": {}}}',
        "a control character",
    ),
    (
        "a: {operator: aggregator, inputs: {blocks: {}}, config: {size: 9}, outputs: {‸e\u0301: {}}}",
        "not in Unicode's normal form NFC; write `\u00e9`, composed",
    ),
    (
        f"a: {{operator: aggregator, inputs: {{blocks: {{}}}}, config: {{size: 9}}, outputs: {{‸{'ä' * 128}: {{}}}}}}",
        "has 256 bytes; use at most 255",
    ),
    # kinds and implementations
    (
        "a: {source: ‸repaly, config: {path: p, cursor: n}, outputs: {d: {cursor: {column: n, type: int64}}}}",
        "there is no source `repaly`; did you mean `replay`",
    ),
    (
        "a: {operator: ‸spark, inputs: {blocks: {}}, outputs: {d: {}}}",
        "there is no operator `spark`; known are `aggregator`, `splitter`, `sql`, `noop` or `python`",
    ),
    (
        "a: {‸source: sql, config: {sql: select number from blocks}, inputs: {blocks: {}}, outputs: {d: {}}}",
        "`sql` is no source; write `operator: sql`",
    ),
    ("‸a: {outputs: {d: {}}}", "none of `source`, `operator` or `virtual` is given"),
    ("‸a: {operator: aggregator, inputs: {blocks: {}}, config: {size: 9}}", "it produces no dataset"),
    (
        "a: {operator: aggregator, inputs: {blocks: {}}, config: {size: 9}, ‸outputs: {r: {}, s: {}}}",
        "`aggregator` produces one dataset, and these are 2",
    ),
    (
        "a: {operator: aggregator, inputs: {blocks: {}}, config: {size: 9}, execution_strategy: ‸bulk, outputs: {r: {}}}",
        "`bulk` is refused: Trace never merges events; put a job with `operator: aggregator` before this one",
    ),
    (
        "a: {operator: aggregator, ‸runtime: python3.11, inputs: {blocks: {}}, config: {size: 9}, outputs: {r: {}}}",
        "`runtime` does not belong here: `aggregator` is built in",
    ),
    (
        "a: {operator: aggregator, inputs: {blocks: {}}, config: {size: 9}, outputs: {r: {}}, ‸secrets: {A: {env: A}}}",
        "`aggregator` asks for no secrets",
    ),
    (
        "a: {operator: splitter, ‸ordered: true, inputs: {ranges: {}}, outputs: {r: {}}}".replace(
            "‸ordered: ", "ordered: ‸"
        ),
        "tasks of `splitter` do not depend on order",
    ),
    # inputs
    ("‸a: {operator: aggregator, config: {size: 9}, outputs: {r: {}}}", "no input triggers it, so it would never run"),
    (
        "a: {operator: sql, config: {sql: from blocks}, ‸inputs: {blocks: {trigger: false}}, outputs: {r: {}}}",
        "no input triggers it, so it would never run; let one input trigger",
    ),
    (
        "a: {operator: aggregator, ‸inputs: {blocks: {}, ranges: {}}, config: {size: 9}, outputs: {r: {}}}",
        "`aggregator` takes one trigger, and these are 2: `blocks` and `ranges`",
    ),
    (
        "a: {operator: aggregator, inputs: {blocks: {}, ‸ranges: {trigger: false}}, config: {size: 9}, outputs: {r: {}}}",
        "`aggregator` works on events and reads no rows; take this input out",
    ),
    (
        "a: {operator: splitter, inputs: {ranges: {}}, outputs: {r: {cursor: {column: n, type: string}}}}".replace(
            "cursor", "‸cursor"
        ),
        "the cursor of the output is string, and that of the trigger int64",
    ),
    (
        "a: {operator: sql, config: {sql: from blocks}, inputs: {blocks: {}, ‸words: {trigger: false}}, outputs: {r: {}}}",
        "the cursor of `words` is string and that of the trigger int64",
    ),
    (
        "a: {operator: sql, config: {sql: select w from words}, inputs: {words: {lookback: ‸1}}, outputs: {r: {}}}",
        "`lookback` counts int64 cursors, and the cursor of `words` is string",
    ),
    (
        "a: {operator: aggregator, config: {size: 9}, inputs: {‸words: {}}, outputs: {r: {}}}",
        "`aggregator` works on cursors of the type `int64` or `timestamp`, and that of `words` is string",
    ),
    # config
    (
        "‸a: {operator: aggregator, inputs: {blocks: {}}, outputs: {r: {}}}",
        "`aggregator` needs `config.size`, a width of the trigger's cursor",
    ),
    (
        "a: {operator: aggregator, inputs: {blocks: {}}, config: {‸sise: 9}, outputs: {r: {}}}",
        "`aggregator` takes no `sise`; did you mean `size`?",
    ),
    (
        "a: {operator: aggregator, inputs: {blocks: {}}, config: {size: ‸0}, outputs: {r: {}}}",
        "0 is not a whole number that `size` can be; write a whole number from 1",
    ),
    (
        "a: {operator: aggregator, inputs: {blocks: {}}, config: {size: ‸1.5}, outputs: {r: {}}}",
        "1.5 is not a whole number",
    ),
    (
        "a: {operator: aggregator, inputs: {blocks: {}}, config: {size: ‸1h}, outputs: {r: {}}}",
        "this is `1h`; write a whole",
    ),
    (
        "a: {operator: aggregator, inputs: {hours: {}}, config: {size: ‸100}, outputs: {r: {}}}",
        "a duration of whole microseconds is wanted here, and this is `100`; the trigger's cursor is a timestamp",
    ),
    (
        "a: {operator: splitter, inputs: {ranges: {}}, config: {‸size: 9}, outputs: {r: {}}}",
        "takes no `size`; leave `config` out",
    ),
    (
        "a: {source: replay, config: {path: p, cursor: ‸m}, outputs: {d: {cursor: {column: n, type: int64}}}}",
        "`config.cursor` is `m`, and the cursor of the output `n`; name the same column in both",
    ),
    (
        "a: {source: replay, config: {path: p, cursor: n}, outputs: {‸d: {}}}",
        "`replay` needs to know the cursor of its output",
    ),
    (
        "a: {source: replay, config: {path: ‸3, cursor: n}, outputs: {d: {cursor: {column: n, type: int64}}}}",
        "a path is wanted here, and this is `3`",
    ),
    (
        "a: {source: replay, config: {path: p, cursor: n, until: ‸x}, outputs: {d: {cursor: {column: n, type: int64}}}}",
        "`x` is no int64; write a value of the output's cursor",
    ),
    (
        "a: {source: replay, config: {path: p, cursor: n, rate: ‸0}, outputs: {d: {cursor: {column: n, type: int64}}}}",
        "write a number from 0.001",
    ),
    (
        "a: {source: replay, ‸inputs: {blocks: {}}, config: {path: p, cursor: n}, outputs: {d: {cursor: {column: n, type: int64}}}}",
        "`inputs` does not belong here: a source emits on its own",
    ),
    (
        "a: {source: replay, execution: {‸timeout: 5s}, config: {path: p, cursor: n}, outputs: {d: {cursor: {column: n, type: int64}}}}",
        "a source runs for as long as it emits",
    ),
    # python
    (
        "a: {operator: python, code: {bundle: ./o, entrypoint: 'm:f'}, ‸inputs: {blocks: {}}, outputs: {r: {}}}".replace(
            "‸", ""
        ).replace("a:", "‸a:", 1),
        "`python` needs `runtime`; write `python3.11`",
    ),
    (
        "a: {operator: python, runtime: ‸python2.7, code: {bundle: ./o, entrypoint: 'm:f'}, inputs: {blocks: {}}, outputs: {r: {}}}",
        "there is no runtime `python2.7`",
    ),
    (
        "a: {operator: python, runtime: python3.11, ‸code: {entrypoint: 'm:f'}, inputs: {blocks: {}}, outputs: {r: {}}}",
        "`python` needs `code.bundle`; write `code: {bundle: ./operators}`",
    ),
    (
        "a: {operator: python, runtime: python3.11, code: {bundle: ‸/o, entrypoint: 'm:f'}, inputs: {blocks: {}}, outputs: {r: {}}}",
        "`/o` is no path relative to the document",
    ),
    (
        "a: {operator: python, runtime: python3.11, code: {bundle: o, entrypoint: ‸f}, inputs: {blocks: {}}, outputs: {r: {}}}",
        "`f` is not allowed here; write it as `module:function`",
    ),
    (
        "a: {operator: python, runtime: python3.11, code: {bundle: o, entrypoint: 'm:f'}, inputs: {blocks: {}}, outputs: {r: {}}, ‸secrets: {A: {env: A}}}",
        "`python` runs in a sandbox that can reach nothing, and secrets are for trusted code",
    ),
    # outputs
    (
        "a: {operator: sql, config: {sql: from blocks}, inputs: {blocks: {}}, outputs: {r: {storage: ‸postgres}}}",
        "`postgres` comes with a later release; write `parquet`",
    ),
    (
        "a: {operator: sql, config: {sql: from blocks}, inputs: {blocks: {}}, outputs: {r: {storage: ‸none}}}",
        "`sql` does not write `none`; write `parquet`",
    ),
    (
        "a: {operator: aggregator, inputs: {blocks: {}}, config: {size: 9}, outputs: {r: {storage: ‸parquet}}}",
        "`aggregator` does not write `parquet`; write `none`",
    ),
    (
        "a: {operator: aggregator, inputs: {blocks: {}}, config: {size: 9}, outputs: {r: {‸schema: {n: int64}}}}",
        "`storage: none` keeps no rows, so `schema` means nothing",
    ),
    (
        "a: {operator: sql, config: {sql: from blocks}, inputs: {blocks: {}}, outputs: {r: {update: ‸append}}}",
        "`append` needs the columns that tell rows apart",
    ),
    (
        "a: {operator: sql, config: {sql: from blocks}, inputs: {blocks: {}}, outputs: {r: {‸unique_key: [hash]}}}",
        "`unique_key` goes with `update: append`",
    ),
    (
        "a: {operator: sql, config: {sql: from blocks}, inputs: {blocks: {}}, outputs: {r: {sort: [number, ‸hahs]}}}",
        "the dataset has no column `hahs`; did you mean `hash`?",
    ),
    (
        "a: {operator: sql, config: {sql: from blocks}, inputs: {blocks: {}}, outputs: {r: {cursor: {column: ‸hash, type: int64}}}}",
        "the cursor's column `hash` is string, and the cursor int64",
    ),
    (
        "a: {operator: sql, config: {sql: from blocks}, inputs: {blocks: {}}, outputs: {r: {schema: {number: int64, hash: string, gas: ‸int46}}}}",
        "is not known; use one of",
    ),
    (
        "a: {source: replay, config: {path: p, cursor: n}, outputs: {d: {cursor: {column: n, type: int64}, schema: {n: int64, ‸N: string}}}}",
        "the columns `N` and `n` differ in upper and lower case only",
    ),
    (
        "a: {source: replay, config: {path: p, cursor: n}, outputs: {d: {cursor: {column: ‸n, type: int64}, schema: {m: int64}}}}",
        "the dataset has no column `n`",
    ),
    (
        "a: {operator: sql, config: {sql: from blocks}, inputs: {blocks: {}}, outputs: {r: {}}, execution: {retry_backoff: ‸5m, max_retry_backoff: 1m}}",
        "the first wait, 300s, is longer than the limit of waits, 60s",
    ),
    # virtual nodes
    ("a: {virtual: {sql: from blocks}, outputs: {v: {‸storage: parquet}}}", "a virtual dataset is never stored"),
    (
        "a: {virtual: {sql: from blocks}, ‸inputs: {blocks: {}}, outputs: {v: {}}}",
        "the inputs of a virtual node are the datasets that its SQL names",
    ),
    ("a: {virtual: {sql: from blocks}, ‸execution: {max_attempts: 1}, outputs: {v: {}}}", "it never runs"),
    ("a: {virtual: {sql: ‸''}, outputs: {v: {}}}", "the text is empty"),
    (
        "v: {virtual: {sql: from blocks}, outputs: {v: {}}}\n  a: {operator: sql, config: {sql: from v}, inputs: {ranges: {}, v: {trigger: ‸true}}, outputs: {r: {}}}",
        "`v` is virtual: it has no events that could trigger a task",
    ),
    (
        "v: {virtual: {sql: from blocks}, outputs: {v: {}}}\n  a: {operator: sql, config: {sql: from v}, ‸inputs: {v: {}}, outputs: {r: {}}}",
        "no input triggers it",
    ),
    (
        "v: {virtual: {sql: from blocks}, outputs: {v: {}}}\n  a: {operator: sql, config: {sql: from v}, inputs: {ranges: {}, v: {lookback: ‸1}}, outputs: {r: {}}}",
        "`v` is virtual and has no cursor",
    ),
    (
        "v: {virtual: {sql: from words}, outputs: {v: {}}}\n  a: {operator: sql, config: {sql: select 1 number from v}, inputs: {ranges: {}, ‸v: {}}, outputs: {r: {}}}",
        "`v` reads `words`, whose cursor is string, and that of the trigger is int64",
    ),
]

OTHER_CURSORS = """\
  words:
    source: replay
    config: {path: words.csv, cursor: w}
    outputs: {words: {cursor: {column: w, type: string}, schema: {w: string}}}
  hours:
    source: replay
    config: {path: hours.csv, cursor: h, until: 2024-05-01T00:00:00Z}
    outputs: {hours: {cursor: {column: h, type: timestamp}, schema: {h: timestamp}}}
"""


@pytest.mark.parametrize(("job", "message"), [case for case in JOBS if case[1] is not None])
def test_problem_of_a_job_is_reported_where_it_stands(job: str, message: str) -> None:
    expect(f"{BLOCKS}{OTHER_CURSORS}  {job}\n", [message])


def test_jobs_without_problems_have_none() -> None:
    assert not read(BLOCKS + OTHER_CURSORS).problems


def test_several_jobs_may_write_a_dataset_that_both_declare_so() -> None:
    text = """\
dag: x
jobs:
  a:
    source: replay
    config: {path: a, cursor: n}
    outputs: {d: {cursor: {column: n, type: int64}, writers: many}}
  b:
    source: replay
    config: {path: b, cursor: n}
    outputs: {d: {cursor: {column: n, type: int64}, writers: many}}
"""
    assert not read(text).problems
    expect(
        text.replace("writers: many", "writers: one", 1).replace(
            "outputs: {d: {cursor: {column: n, type: int64}, writers: many",
            "outputs: {‸d: {cursor: {column: n, type: int64}, writers: many",
        ),
        ["both produce `d`; produce it in one job, or say `writers: many` for it in `a`"],
    )
    second = text.rindex("outputs: {d: {cursor")
    differing = text[:second] + text[second:].replace(
        "cursor: {column: n, type: int64}", "‸cursor: {column: n, type: string}"
    )
    expect(differing, ["the jobs that produce `d` declare different values of `cursor`; declare the same in each"])


def test_cycle_is_reported_with_its_path() -> None:
    expect(
        """dag: x
jobs:
  a: {operator: splitter, inputs: {‸z: {}}, outputs: {x: {}}}
  b: {operator: splitter, inputs: {x: {}}, outputs: {y: {}}}
  c: {operator: splitter, inputs: {y: {}}, outputs: {z: {}}}
  d: {operator: splitter, inputs: {y: {}}, outputs: {w: {}}}
""",
        ["the jobs form a cycle: a -> x -> b -> y -> c -> z -> a; let one of them read something else"],
    )


def test_job_that_reads_its_own_output_is_a_cycle() -> None:
    expect("dag: x\njobs:\n  a: {operator: splitter, inputs: {‸d: {}}, outputs: {d: {}}}\n", ["cycle: a -> d -> a"])


def test_cycle_of_virtual_nodes_is_reported_at_their_sql() -> None:
    expect(
        """dag: x
jobs:
  a: {virtual: {‸sql: from y}, outputs: {x: {}}}
  b: {virtual: {sql: select * from x}, outputs: {y: {}}}
""",
        ["the jobs form a cycle: a -> x -> b -> y -> a"],
    )


def test_cycle_through_a_dataset_of_another_dag_is_reported() -> None:
    theirs = foreign("theirs", OutputSpec(), "from ours", ("ours",))
    expect(
        "dag: x\njobs:\n  a: {virtual: {‸sql: from theirs}, outputs: {ours: {}}}\n",
        ["the jobs form a cycle: a -> ours -> theirs -> a"],
        known(theirs),
    )


def test_dataset_of_another_dag_can_be_read_and_not_produced() -> None:
    theirs = known(foreign("Their.numbers", NUMBERS))
    reads = 'dag: x\njobs:\n  a: {operator: sql, config: {sql: from "their.numbers"}, inputs: {Their.numbers: {}}, outputs: {d: {}}}\n'
    assert not read(reads, theirs).problems
    writes = "dag: x\njobs:\n  a:\n    source: replay\n    config: {path: p, cursor: n}\n    outputs: {‸DATASET: {cursor: {column: n, type: int64}}}\n"
    expect(
        writes.replace("DATASET", "Their.numbers"),
        ["the DAG `other` produces `Their.numbers`, and two DAGs never"],
        theirs,
    )
    expect(
        writes.replace("DATASET", "their.NUMBERS"), ["of the DAG `other` differ in upper and lower case only"], theirs
    )
    assert not read(
        writes.replace("DATASET", "Their.numbers").replace("‸", "").replace("dag: x", "dag: other"), theirs
    ).problems


def test_input_that_only_an_earlier_version_of_the_dag_produced_is_missing() -> None:
    before = known(foreign("gone", NUMBERS))
    expect(
        "dag: other\njobs:\n  a: {operator: splitter, inputs: {‸gone: {}}, outputs: {d: {}}}\n",
        ["`gone` was produced by an earlier version of this DAG"],
        before,
    )


def test_triggers_in_different_columns_need_a_stated_cursor() -> None:
    job = "  a: {operator: sql, config: {sql: select 1 as n}, inputs: {blocks: {}, more: {}}, outputs: {‸r: {}}}\n"
    more = (
        "  more: {source: replay, config: {path: p, cursor: n}, outputs: {more: {cursor: {column: n, type: int64}}}}\n"
    )
    expect(BLOCKS + more + job, ["its triggers have cursors in different columns, `n` and `number`; state `cursor`"])
    stated = job.replace("‸r: {}", "r: {cursor: {column: n, type: int64}}")
    assert not read(BLOCKS + more + stated).problems
