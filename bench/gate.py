"""What the gate lets through, and what it costs: `make bench-gate`. The rows go to bench/out/gate.jsonl.

The corpus and its mutants are those of tests/queryd/attacks, here a hundred thousand of these. Of those that pass some,
evenly chosen, are judged by what they do on a plain engine. Times are those of one text, from its parsing to the gate's
answer, as in a cell that is warm.
"""

import argparse
import contextlib
import json
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import duckdb
from rich.progress import track

from bench.percentiles import percentile
from bench.table import Measure, report
from queryd.gate import GateError, check
from tests.queryd.attacks.corpus import attacks, classes, worth_mutating
from tests.queryd.attacks.judging import Verdict, judged, not_named
from tests.queryd.attacks.mutation import Mutator
from tests.queryd.attacks.plain import PlainEngines
from tests.queryd.extensions import environment

_DATASETS = frozenset({"plain", "named"})
_HONEST = Path(__file__).parents[1] / "tests" / "queryd" / "ordinary.sql"
_SEED = 20261127
_ROUNDS = 5


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench.gate", description=__doc__)
    parser.add_argument("--mutants", type=int, default=100_000, help="how many mutants of attacks")
    parser.add_argument("--run", type=int, default=2_000, help="how many of those that pass are run on a plain engine")
    parser.add_argument("--seed", type=int, default=_SEED, help="of the mutants")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="gate-") as name, duckdb.connect() as connection:
        folder = Path(name)
        found = [
            *_times(connection, folder),
            *_corpus(connection, folder),
            *_mutants(connection, folder, arguments),
        ]
    return 0 if report("gate", found, arguments.seed) else 1


def _times(connection: duckdb.DuckDBPyConnection, folder: Path) -> list[Measure]:
    honest = [text for name in ("tpch", "tpcds") for text in _queries(folder, name)]
    hostile = [attack.filled(folder, port=1).sql for attack in attacks()]
    of_honest, of_hostile = _milliseconds(connection, honest), _milliseconds(connection, hostile)
    return [
        Measure(f"gate, the {len(honest)} queries of TPC-H and TPC-DS, p50", percentile(of_honest, 50), "ms"),
        Measure("the same, p95", percentile(of_honest, 95), "ms", "<= 5"),
        Measure("the same, the longest", max(of_honest), "ms"),
        Measure(f"gate, {len(hostile)} attacks, p50", percentile(of_hostile, 50), "ms"),
        Measure("the same, p95", percentile(of_hostile, 95), "ms", "<= 5"),
        Measure("all of them, p95", percentile([*of_honest, *of_hostile], 95), "ms", "<= 5"),
    ]


def _queries(folder: Path, name: str) -> Iterable[str]:
    place = folder / name
    place.mkdir()
    environment.run("tpc", str(place), name, "0")  # without rows
    queries: dict[str, str] = json.loads((place / "queries.json").read_text())
    return queries.values()


def _milliseconds(connection: duckdb.DuckDBPyConnection, texts: Sequence[str]) -> list[float]:
    """Of each text the best of some rounds: what else runs on the machine is no cost of the gate."""
    return [min(_once(connection, text) for _ in range(_ROUNDS)) for text in texts]


def _once(connection: duckdb.DuckDBPyConnection, text: str) -> float:
    begin = time.perf_counter()
    with contextlib.suppress(GateError):
        check(connection, text)
    return (time.perf_counter() - begin) * 1000


def _corpus(connection: duckdb.DuckDBPyConnection, folder: Path) -> list[Measure]:
    corpus = [attack.filled(folder, port=1) for attack in attacks()]
    passed = [attack for attack in corpus if not judged(connection, attack.sql).is_refused(_DATASETS)]
    wrong = [attack for attack in passed if attack.succeeds_if != "exceeds"]
    return [
        Measure("attacks", len({attack.sql for attack in corpus}), "", ">= 300"),
        Measure("their classes", len(classes()), "", ">= 12"),
        Measure("attacks that pass because they only take much: for the cell to bound", len(passed) - len(wrong), ""),
        Measure("other attacks that pass", len(wrong), "", "<= 0", note="; ".join(attack.sql for attack in wrong)),
    ]


def _mutants(connection: duckdb.DuckDBPyConnection, folder: Path, arguments: argparse.Namespace) -> list[Measure]:
    count = arguments.mutants
    honest = _HONEST.read_text().split("\n\n")[1:]
    verdicts, hidden = dict.fromkeys(Verdict, 0), list[str]()
    passed: dict[str, tuple[tuple[str, ...], ...]] = {}
    with PlainEngines(folder / "attacked") as engines:
        mutator = Mutator(arguments.seed, worth_mutating(engines.folder), honest)
        for text in track(mutator.mutants(count), "mutants", total=count):
            found = judged(connection, text)
            verdicts[found.verdict] += 1
            if found.verdict is not Verdict.PASSED:
                continue
            passed[text] = found.names
            if not_named(connection, text, found.names):
                hidden.append(text)
        run = list(passed.items())[:: max(1, -(-len(passed) // arguments.run))]
        harm = [text for text, names in track(run, "run on a plain engine") if engines.harm(text, names)]
    return [
        Measure("mutants", sum(verdicts.values()), "", ">= 100000", counts=count >= 100_000),
        Measure("refused by the gate", verdicts[Verdict.REFUSED], ""),
        Measure("no SQL to the parser any more", verdicts[Verdict.UNPARSED], ""),
        Measure("passed", verdicts[Verdict.PASSED], ""),
        Measure("of those, that read what the gate did not name", len(hidden), "", "<= 0", note="; ".join(hidden[:3])),
        Measure("of those that passed, run on a plain engine", len(run), ""),
        Measure(
            "of those run, that told a secret or changed anything", len(harm), "", "<= 0", note="; ".join(harm[:3])
        ),
    ]


if __name__ == "__main__":
    sys.exit(main())
