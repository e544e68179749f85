"""What reading costs, and what it cannot do to anybody: `make bench-query`, or `--only NAME`.

Each measure stands in a file of its own, as those of bench-dispatch. The rows go to bench/out/query.jsonl too.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import adbc_driver_manager
import grpc
import psycopg
import pyarrow as pa

from bench import many_artifacts, many_clients, slow_client, stops, tiny, transfer
from bench.settings import Settings
from bench.stack import Stack, TooSlow, running_stack
from bench.table import Measure, report

MEASURES: dict[str, Callable[[Stack, Settings], Sequence[Measure]]] = {
    "transfer": transfer.measure,
    "tiny": tiny.measure,
    "many-clients": many_clients.measure,
    "slow-client": slow_client.measure,
    "many-artifacts": many_artifacts.measure,
    "stops": stops.measure,
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench.query", description=__doc__)
    parser.add_argument("--only", action="append", choices=list(MEASURES), help="only this measure; may be repeated")
    parser.add_argument("--quick", action="store_true", help="smaller and fewer: to see that it works")
    arguments = parser.parse_args()
    settings = Settings(arguments.quick, Path(sys.executable))
    found: list[Measure] = []
    for name in arguments.only or MEASURES:
        with tempfile.TemporaryDirectory(prefix="query-") as folder, running_stack(Path(folder)) as stack:
            found += _measured(name, stack, settings)
    return 0 if report("query", found, seed=0) else 1


def _measured(name: str, stack: Stack, settings: Settings) -> Sequence[Measure]:
    print(f"measuring {name}", file=sys.stderr)
    started = time.monotonic()
    try:
        rows = MEASURES[name](stack, settings)
    except (
        *(TooSlow, psycopg.Error, subprocess.SubprocessError, grpc.RpcError),
        *(pa.ArrowException, adbc_driver_manager.Error),
    ) as error:
        rows = [Measure(name, float("nan"), "", note=f"not measured: {error}")]
    print(f"measured {name} in {time.monotonic() - started:.0f} s", file=sys.stderr)
    return rows


if __name__ == "__main__":
    sys.exit(main())
