"""A generated source of 10^6 events through an aggregator and a `sql` job: `make bench-million`.

It shows that nothing grows with the length of a chain: no transaction writes over 5,000 rows, there are at most 10^4
artifacts, and the memory of every program is flat. The stack is started as `tracectl up` starts it, in a folder that
is removed afterwards.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import psycopg

from bench.memory import MemorySampler
from bench.table import Measure, report
from bench.written import RowsWritten
from kernel.embedded_postgres import EmbeddedPostgres

DOCUMENT = """
dag: million
jobs:
  numbers:
    source: replay
    config: {{path: {path}, cursor: number}}
    outputs:
      bench.numbers:
        cursor: {{column: number, type: int64}}
        schema: {{number: int64, value: int64}}
  ranges:
    operator: aggregator
    config: {{size: 1000}}
    inputs: {{bench.numbers: {{}}}}
    outputs: {{bench.ranges: {{storage: none}}}}
  sums:
    operator: sql
    config:
      sql: select min(number) as number, sum(value)::decimal(38,0) as total, count(*) as units from "bench.numbers"
    inputs:
      bench.ranges: {{}}
      bench.numbers: {{trigger: false}}
    outputs:
      bench.sums:
        schema: {{number: int64, total: "decimal(38,0)", units: int64}}
"""


@dataclass(frozen=True, slots=True)
class Source:
    """The generated file, and what must come out."""

    path: Path
    total: int


def generate(folder: Path, events: int, seed: int) -> Source:
    numbers = random.Random(seed)
    path, total = folder / "data" / "numbers.csv", 0
    path.parent.mkdir()
    with path.open("w", encoding="utf-8") as file:
        file.write("number,value\n")
        for number in range(events):
            value = numbers.randrange(1_000_000)
            total += value
            file.write(f"{number},{value}\n")
    return Source(path, total)


def ctl(home: Path, *arguments: str) -> str:
    command = [sys.executable, "-m", "ctl", *arguments, "--home", str(home)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def measure(folder: Path, events: int, seed: int) -> list[Measure]:
    home = folder / "home"
    source = generate(folder, events, seed)
    document = folder / "dag.yaml"
    document.write_text(DOCUMENT.format(path=source.path), encoding="utf-8")
    endpoints = json.loads(
        ctl(home, "up", "--detach", "--port", "0", "--replay-root", str(source.path.parent), "--output", "json")
    )
    try:
        pids = {name: endpoints["pids"][name] for name in ("dispatcher", "wrapper", "queryd", "postgres")}
        conninfo = EmbeddedPostgres(home).conninfo()
        with MemorySampler(pids) as memory, RowsWritten(lambda: psycopg.connect(conninfo, autocommit=True)) as written:
            started = time.monotonic()
            ctl(home, "dag", "deploy", str(document), "--wait")
            seconds = time.monotonic() - started
        row = json.loads(
            ctl(home, "query", 'select sum(total) as total, sum(units) as units from "bench.sums"', "--output", "json")
        )
        with psycopg.connect(conninfo) as connection:
            artifacts = connection.execute("select count(*) from artifact").fetchone()
            unfinished = connection.execute("select count(*) from any_task where state <> 'succeeded'").fetchone()
    finally:
        ctl(home, "down")
    return [
        Measure("events through three jobs", events, "events"),
        Measure("time from deploy to settled", seconds, "s"),
        Measure("events per second", events / seconds, "1/s"),
        Measure("largest transaction", written.largest.rows, "rows", "<= 5000", note=str(written.largest)),
        Measure("artifacts", float(artifacts[0] if artifacts else -1), "files", "<= 10000"),
        Measure("tasks that did not succeed", float(unfinished[0] if unfinished else -1), "tasks", "<= 0"),
        Measure("sum of values, difference to the source", abs(int(row["total"]) - source.total), "", "<= 0"),
        Measure("units in ranges, difference to the source", abs(int(row["units"]) - events), "", "<= 0"),
        *(Measure(f"memory of {name}, peak", memory.peak_mib(name), "MiB") for name in pids),
        *(Measure(f"memory of {name}, growth", memory.growth(name), "x", "<= 1.2") for name in pids),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench.million", description=__doc__)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="million-") as folder:
        measures = measure(Path(folder), arguments.events, arguments.seed)
    return 0 if report("million", measures, arguments.seed) else 1


if __name__ == "__main__":
    sys.exit(main())
