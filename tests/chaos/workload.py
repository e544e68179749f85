"""What a run works on: three chained jobs over one source with a job of files behind them, and a second source that can
only fail.

Each number of the source is a task of `hop`, whose event is a task of `skip`, whose event is a task of the ordered
`ranges`: so every way of delivery is in it, tasks of their own and runs, files, watermarks and state. Each range is a
task of `tagged`, which writes a file whose rows say of what version they are, and whose event is a task of a reader in
another DAG. A document has a *shape*: what is changed
from one deploy to the next.
"""

from dataclasses import dataclass
from pathlib import Path

DAG, READER_DAG = "chaos", "reader"
DATASETS = ("c.numbers", "c.hops", "c.skips", "c.ranges", "c.tagged")
"""Those of the chain, from its source on."""
TAGGED = "c.tagged"
TAGGED_JOB = "tagged"
_DOCUMENT = """
dag: {dag}
defaults: {{execution: {{max_attempts: {attempts}, retry_backoff: 200ms, max_retry_backoff: 1s}}}}
jobs:
  numbers:
    source: replay
    config: {{path: {folder}/numbers.csv, cursor: n, rate: {rate}, until: {last}}}
    outputs: {{c.numbers: {{cursor: {{column: n, type: int64}}, schema: {{n: int64}}}}}}
  hop:
    operator: noop
    config: {hop}
    inputs: {{c.numbers: {{}}}}
    outputs: {{c.hops: {{storage: none}}}}
  skip:
    operator: noop
    config: {skip}
    inputs: {{c.hops: {{}}}}
    outputs: {{c.skips: {{storage: none}}}}
  ranges:
    operator: aggregator
    config: {{size: {size}}}
    inputs: {{c.skips: {{}}}}
    outputs: {{c.ranges: {{storage: none}}}}
    execution: {{max_run_tasks: 120}}
  tagged:
    operator: sql
    config: {{sql: "select n, '{tag}' as tag from \\"c.numbers\\""}}
    inputs: {{c.ranges: {{}}, c.numbers: {{trigger: false}}}}
    outputs: {{c.tagged: {{schema: {{n: int64, tag: string}}}}}}
  poison:
    source: replay
    config: {{path: {folder}/poison.csv, cursor: n}}
    outputs: {{c.poison: {{cursor: {{column: n, type: int64}}, schema: {{n: int64}}}}}}
    execution: {{max_attempts: 2}}
"""
READER = f"""
dag: {READER_DAG}
defaults: {{execution: {{max_attempts: 50, retry_backoff: 200ms, max_retry_backoff: 1s}}}}
jobs:
  follow:
    operator: noop
    inputs: {{{TAGGED}: {{}}}}
    outputs: {{r.followed: {{storage: none}}}}
"""
"""Another DAG, which reads the last dataset of the chain and is never changed: it follows whatever is served."""
_SAME = ("{}", "{events: 1}")
"""Two ways of saying the same: what is built is built anew, and comes out as before."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What a document says. `hop` and `skip` are 0 or 1; `attempts` alone changes nothing that is built."""

    hop: int = 0
    skip: int = 0
    size: int = 10
    letter: str = "A"
    attempts: int = 50

    @property
    def tag(self) -> str:
        """What rows of `tagged` say: another one for each version of it."""
        return f"{self.hop}{self.skip}-{self.size}-{self.letter}"


@dataclass(frozen=True, slots=True)
class Workload:
    """The files of the sources, and the document that reads them in place."""

    folder: Path
    events: int
    rate: int

    def write(self) -> None:
        """The files."""
        (self.folder / "numbers.csv").write_text("\n".join(["n", *map(str, range(self.events))]) + "\n")
        (self.folder / "poison.csv").write_text("n\n2\n1\n")

    def document(self, shape: Shape) -> str:
        return _DOCUMENT.format(
            dag=DAG,
            folder=self.folder,
            rate=self.rate,
            last=self.events - 1,
            attempts=shape.attempts,
            hop=_SAME[shape.hop],
            skip=_SAME[shape.skip],
            size=shape.size,
            tag=shape.tag,
        )

    @property
    def tasks(self) -> int:
        """How many there are in the end of a version: the sources' runs, and one in each of the three jobs for each
        number. Those of `tagged` depend on the size."""
        return 2 + 3 * self.events
