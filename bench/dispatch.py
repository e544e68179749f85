"""How fast tasks are delivered: `make bench-dispatch`, or `--only NAME` for some of its measures.

Each measure stands in a file of its own, is bounded in time, and says where it could not do what it should: a row
without a value has a note. One stack serves all of them, started as `tracectl up` starts it, in a folder that is
removed afterwards. The rows go to bench/out/dispatch.jsonl too.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import psycopg

from bench import bad_items, behind, churn, fan_out, idle, invariants, latency, noop, sqs
from bench.fsync import probe
from bench.peer_runs import PeerFailed
from bench.settings import Settings
from bench.stack import Stack, TooSlow, running_stack
from bench.table import Measure, report

MEASURES: dict[str, Callable[[Stack, Settings], Sequence[Measure]]] = {
    "noop": noop.measure,
    "python": noop.measure_python,
    "latency": latency.measure,
    "idle": idle.measure,
    "bad-items": bad_items.measure,
    "fan-out": fan_out.measure,
    "behind": behind.measure,
    "invariants": invariants.measure,
    "sqs": sqs.measure,
    "churn": churn.measure_alone,
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench.dispatch", description=__doc__)
    parser.add_argument("--only", action="append", choices=list(MEASURES), help="only this measure; may be repeated")
    parser.add_argument("--quick", action="store_true", help="smaller and fewer: to see that it works")
    parser.add_argument("--peers", type=Path, default=Path(".venv-bench/bin/python"), help="Python of the peers")
    arguments = parser.parse_args()
    settings = Settings(arguments.quick, arguments.peers.absolute())
    found: list[Measure] = []
    with tempfile.TemporaryDirectory(prefix="dispatch-") as folder, running_stack(Path(folder)) as stack:
        for name in arguments.only or MEASURES:
            found += _measured(name, stack, settings)
    return 0 if report("dispatch", found, seed=0) else 1


def _measured(name: str, stack: Stack, settings: Settings) -> Sequence[Measure]:
    print(f"measuring {name}", file=sys.stderr)
    started = time.monotonic()
    disk = probe(stack.home.root)
    try:
        rows = MEASURES[name](stack, settings)
    except (TooSlow, PeerFailed, psycopg.Error, subprocess.SubprocessError) as error:
        rows = [Measure(name, float("nan"), "", note=f"not measured: {error}")]
    beside = Measure(f"{name}: fsync of the disk before it, p99", disk.p99, "ms", note=f"{disk.rate:,.0f} a second")
    print(f"measured {name} in {time.monotonic() - started:.0f} s", file=sys.stderr)
    return [*rows, beside]


if __name__ == "__main__":
    sys.exit(main())
