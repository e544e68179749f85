"""What a run works on: three chained jobs over one source, and a second source that can only fail.

Each number of the source is a task of `hop`, whose event is a task of `skip`, whose event is a task of the ordered
`ranges`: so every way of delivery is in it, tasks of their own and runs, files, watermarks and state.
"""

from pathlib import Path

_DOCUMENT = """
dag: chaos
defaults: {{execution: {{max_attempts: 50, retry_backoff: 200ms, max_retry_backoff: 1s}}}}
jobs:
  numbers:
    source: replay
    config: {{path: {folder}/numbers.csv, cursor: n, rate: {rate}, until: {last}}}
    outputs: {{c.numbers: {{cursor: {{column: n, type: int64}}, schema: {{n: int64}}}}}}
  hop:
    operator: noop
    inputs: {{c.numbers: {{}}}}
    outputs: {{c.hops: {{storage: none}}}}
  skip:
    operator: noop
    inputs: {{c.hops: {{}}}}
    outputs: {{c.skips: {{storage: none}}}}
  ranges:
    operator: aggregator
    config: {{size: 10}}
    inputs: {{c.skips: {{}}}}
    outputs: {{c.ranges: {{storage: none}}}}
    execution: {{max_run_tasks: 120}}
  poison:
    source: replay
    config: {{path: {folder}/poison.csv, cursor: n}}
    outputs: {{c.poison: {{cursor: {{column: n, type: int64}}, schema: {{n: int64}}}}}}
    execution: {{max_attempts: 2}}
"""


def tasks_of(events: int) -> int:
    """How many tasks there are in the end: the sources' runs, and one in each of the three jobs for each number."""
    return 2 + 3 * events


def write_workload(folder: Path, events: int, rate: int) -> str:
    """The files, and the document that reads them in place."""
    (folder / "numbers.csv").write_text("\n".join(["n", *map(str, range(events))]) + "\n")
    (folder / "poison.csv").write_text("n\n2\n1\n")
    return _DOCUMENT.format(folder=folder, rate=rate, last=events - 1)
