"""`make help` is complete."""

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_help_lists_every_target() -> None:
    targets = set(re.findall(r"^\.PHONY: (\S+)$", (ROOT / "Makefile").read_text(), re.MULTILINE))
    shown = subprocess.run(["make", "help"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    listed = set(re.findall(r"^  (\S+) +\S", shown, re.MULTILINE))
    assert {"demo", "test", "check", "generate", "verify"} <= targets
    assert listed == targets


def test_every_target_is_declared() -> None:
    text = (ROOT / "Makefile").read_text()
    assert re.findall(r"^([a-z-]+):", text, re.MULTILINE) == re.findall(r"^\.PHONY: (\S+)$", text, re.MULTILINE)
