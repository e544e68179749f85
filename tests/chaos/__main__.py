"""`make chaos SEED=.. RUNS=..`: so many seeds from that one on, a run each; what happened, as a table, and the verdict.

Rows go to bench/out/chaos.jsonl too. With `--ledger` each run is a line of that file. A run that did not pass keeps its
folder, with logs, histories and the database, and says where. The exit status is 0 where all runs passed.
"""

import argparse
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from bench.table import Measure, report
from tests.chaos import ledger
from tests.chaos.bugs import BUGS
from tests.chaos.plan import Kind
from tests.chaos.rarities import LEAST, Injected
from tests.chaos.run import Result, run

_SHOWN = 20
_SECONDS = "<= 20"


def main() -> int:
    parser = argparse.ArgumentParser(prog="tests.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="the first one")
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--bug", choices=sorted(BUGS), default="", help="a bug to plant: a run should not pass then")
    parser.add_argument("--ledger", type=Path, help="a file to which each run is added")
    parser.add_argument("--keep", action="store_true", help="keep the folders of runs that passed, too")
    arguments = parser.parse_args()
    commit = ledger.commit()
    results: list[Result] = []
    for seed in range(arguments.seed, arguments.seed + arguments.runs):
        folder = Path(tempfile.mkdtemp(prefix="chaos-"))
        result = run(seed, folder / "home", bug=arguments.bug)
        results.append(result)
        _tell(result)
        if arguments.ledger is not None:
            ledger.add(arguments.ledger, ledger.entry(result, commit))
        if result.outcome == "passed" and not arguments.keep:
            shutil.rmtree(folder)
        else:
            _say(f"  {folder}")
    return 0 if report("chaos", _measures(results), arguments.seed) else 1


def _tell(result: Result) -> None:
    hits = ", ".join(map(_named, result.injected))
    _say(f"seed {result.seed} {result.outcome} in {result.seconds:.1f} s; woken over {result.wakeups}; faults: {hits}")
    for violation in result.violations[:_SHOWN]:
        _say(f"  {violation}")
    if len(result.violations) > _SHOWN:
        _say(f"  and {len(result.violations) - _SHOWN} more")
    for missing in result.missing:
        _say(f"  nothing was proved: {missing}")


def _named(fault: Injected) -> str:
    """With the tasks that it met in flight."""
    where = f" {fault.detail}" if fault.kind is Kind.CRASH else ""
    return f"{fault.kind.value}{where} ({fault.in_flight})"


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _measures(results: Sequence[Result]) -> list[Measure]:
    """Of a count that has to be reached in each run, the least one; of others the median."""
    seconds = [result.seconds for result in results]
    found = [
        Measure("runs", len(results), "runs"),
        Measure("violations", sum(len(result.violations) for result in results), "", "<= 0"),
        Measure("runs in which too little happened", sum(bool(result.missing) for result in results), "runs", "<= 0"),
        Measure("a run", median(seconds), "s", _SECONDS, tuple(seconds)),
    ]
    for name in results[0].rarities:
        samples = tuple(float(result.rarities[name]) for result in results)
        if name in LEAST:
            found.append(Measure(f"{name}, least of a run", min(samples), "", f">= {LEAST[name]:g}", samples))
        else:
            found.append(Measure(f"{name}, median of a run", median(samples), "", "", samples))
    kinds = Counter(fault.kind.value for result in results for fault in result.injected if fault.in_flight)
    return found + [Measure(f"fault: {kind}", count, "times") for kind, count in sorted(kinds.items())]


if __name__ == "__main__":
    sys.exit(main())
