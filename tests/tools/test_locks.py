"""The locks pin everything, by hash, and name no place to get it from."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
REQUIREMENT = re.compile(
    r"^(?P<name>[A-Za-z0-9._-]+)==(?P<version>\S+)(?: ; [^\\]*?)?(?: \\\n    --hash=sha256:[0-9a-f]{64})+$",
    re.MULTILINE,
)


def lock(name: str) -> str:
    return (ROOT / "requirements" / name).read_text()


def pins(name: str) -> dict[str, str]:
    return {match["name"]: match["version"] for match in REQUIREMENT.finditer(lock(name))}


@pytest.mark.parametrize("name", ["runtime.txt", "dev.txt", "bench.txt", "extensions.txt"])
def test_every_line_is_a_hashed_pin_or_a_comment(name: str) -> None:
    left = REQUIREMENT.sub("", lock(name))
    assert [line for line in left.splitlines() if line and not line.lstrip().startswith("#")] == []
    assert "://" not in lock(name)


def test_the_tools_environment_holds_the_runtime_at_the_same_versions() -> None:
    runtime = pins("runtime.txt")
    assert len(runtime) > 20
    assert runtime.items() <= pins("dev.txt").items()


def test_every_declared_dependency_is_locked() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    names = {re.split(r"[=<>~!; ]", dependency)[0].lower() for dependency in declared}
    assert names - pins("runtime.txt").keys() == set()


def test_the_typescript_lock_names_no_place() -> None:
    text = (ROOT / "clients" / "typescript" / "package-lock.json").read_text()
    assert '"resolved"' not in text
    assert text.count('"integrity"') == text.count('"node_modules/')
