"""What every bench prints and writes: one row per line of its table, none left out."""

import json
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

OUT = Path(__file__).parent / "out"


@dataclass(frozen=True, slots=True)
class Measure:
    """`target` such as `<= 5000`, empty where there is none; `met` is None then."""

    measure: str
    value: float
    unit: str
    target: str = ""

    @property
    def met(self) -> bool | None:
        if not self.target:
            return None
        relation, limit = self.target.split()
        return self.value <= float(limit) if relation == "<=" else self.value >= float(limit)


def report(name: str, measures: Sequence[Measure], seed: int) -> bool:
    """Prints the table for people, writes `bench/out/<name>.jsonl`, and answers whether every target was met."""
    table = Table(title=name)
    for column, justify in (
        ("measure", "left"),
        ("value", "right"),
        ("unit", "left"),
        ("target", "left"),
        ("met", "left"),
    ):
        table.add_column(column, justify="right" if justify == "right" else "left")
    for item in measures:
        met = {None: "", True: "[green]yes[/green]", False: "[red]no[/red]"}[item.met]
        table.add_row(item.measure, f"{item.value:,.6g}", item.unit, item.target, met)
    Console().print(table)
    OUT.mkdir(exist_ok=True)
    commit = _commit()
    lines = [json.dumps({**asdict(item), "met": item.met, "commit": commit, "seed": seed}) for item in measures]
    (OUT / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return all(item.met is not False for item in measures)


def _commit() -> str:
    found = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    return found.stdout.strip() or "unknown"
