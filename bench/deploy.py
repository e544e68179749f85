"""What a change to a pipeline costs, and whether anybody sees a mixture: `make bench-deploy`, or `--only NAME`.

Each measure stands in a file of its own, as those of bench-dispatch. The rows go to bench/out/deploy.jsonl too.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import grpc
import psycopg

from bench import mixtures, plan, proofs, rebuild, switching
from bench.settings import Settings
from bench.stack import Stack, TooSlow, running_stack
from bench.table import Measure, report

MEASURES: dict[str, Callable[[Stack, Settings], Sequence[Measure]]] = {
    "mixtures": mixtures.measure,
    "in-flight": proofs.in_flight,
    "switching": switching.measure,
    "crashes": proofs.crashes,
    "rebuild": rebuild.measure,
    "taken-back": proofs.taken_back,
    "plan": lambda stack, settings: plan.measure(stack, settings.scaled(1_000, 50)),
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench.deploy", description=__doc__)
    parser.add_argument("--only", action="append", choices=list(MEASURES), help="only this measure; may be repeated")
    parser.add_argument("--quick", action="store_true", help="smaller and fewer: to see that it works")
    arguments = parser.parse_args()
    settings = Settings(arguments.quick, Path(sys.executable))
    found: list[Measure] = []
    for name in arguments.only or MEASURES:
        with tempfile.TemporaryDirectory(prefix="deploy-") as folder, running_stack(Path(folder)) as stack:
            found += _measured(name, stack, settings)
    return 0 if report("deploy", found, seed=0) else 1


def _measured(name: str, stack: Stack, settings: Settings) -> Sequence[Measure]:
    print(f"measuring {name}", file=sys.stderr)
    started = time.monotonic()
    try:
        rows = MEASURES[name](stack, settings)
    except (TooSlow, psycopg.Error, subprocess.SubprocessError, grpc.RpcError) as error:
        rows = [Measure(name, float("nan"), "", note=f"not measured: {error}")]
    print(f"measured {name} in {time.monotonic() - started:.0f} s", file=sys.stderr)
    return rows


if __name__ == "__main__":
    sys.exit(main())
