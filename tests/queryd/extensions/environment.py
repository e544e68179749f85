"""Where that environment is, and how its programs are run."""

import subprocess
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[3]
_PYTHON = _ROOT / ".venv-extensions" / "bin" / "python"


def command(program: str, *arguments: str) -> list[str]:
    """The words that run a program of this folder. Skips the test where the environment is missing."""
    if not _PYTHON.exists():
        pytest.skip("a DuckDB with extensions is missing: make extensions")
    return [str(_PYTHON), "-I", str(Path(__file__).with_name(f"{program}.py")), *arguments]


def run(program: str, *arguments: str) -> None:
    subprocess.run(command(program, *arguments), check=True, timeout=300)
