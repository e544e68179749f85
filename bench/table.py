"""What every bench prints and writes: one row per line of its table, none left out."""

import json
import math
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

OUT = Path(__file__).parent / "out"
_WIDTH = 140  # where nobody says how wide a line may be


@dataclass(frozen=True, slots=True)
class Measure:
    """`target` such as `<= 5000`, empty where there is none; `met` is None then. A value of NaN could not be measured.

    `samples` are what the value is the median of; `note` says what a reader has to know, such as why there is no value.
    `counts` is false for what was measured where its target does not hold, such as on a disk that is too slow.
    """

    measure: str
    value: float
    unit: str
    target: str = ""
    samples: tuple[float, ...] = ()
    note: str = ""
    counts: bool = True

    @property
    def met(self) -> bool | None:
        if not self.target or not self.counts:
            return None
        relation, limit = self.target.split()
        return self.value <= float(limit) if relation == "<=" else self.value >= float(limit)


def report(name: str, measures: Sequence[Measure], seed: int) -> bool:
    """Prints the table for people, writes `bench/out/<name>.jsonl`, and answers whether every target was met."""
    table = Table(title=name)
    noted = any(item.note for item in measures)
    for column in ("measure", "value", "unit", "target", "met", *(["note"] if noted else [])):
        table.add_column(column, justify="right" if column == "value" else "left")
    for item in measures:
        met = {None: "", True: "[green]yes[/green]", False: "[red]no[/red]"}[item.met]
        value = "-" if math.isnan(item.value) else f"{item.value:,.6g}"
        table.add_row(item.measure, value, item.unit, item.target, met, *([item.note] if noted else []))
    Console(width=None if sys.stdout.isatty() else _WIDTH).print(table)
    OUT.mkdir(exist_ok=True)
    commit = _commit()
    lines = [json.dumps(_row(item) | {"commit": commit, "seed": seed}) for item in measures]
    (OUT / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return all(item.met is not False for item in measures)


def _row(item: Measure) -> dict[str, object]:
    """As JSON, which has no NaN."""
    return {**asdict(item), "value": None if math.isnan(item.value) else item.value, "met": item.met}


def _commit() -> str:
    found = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    return found.stdout.strip() or "unknown"
