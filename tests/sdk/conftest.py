"""What the SDK's tests share: bundles of operator code, and a check of every message against the contract."""

from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import dedent

import protovalidate
import pytest
from google.protobuf.message import Message

Bundle = Callable[[str], dict[str, str]]


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    """Makes a bundle of one module, `checks`; the local paths under which a host finds it."""

    def make(code: str) -> dict[str, str]:
        folder = tmp_path / "bundle"
        folder.mkdir()
        (folder / "checks.py").write_text(dedent(code))
        return {"./operators": str(folder)}

    return make


@pytest.fixture
def contract() -> Iterator[Callable[[Message], None]]:
    """Takes every message that a host sends; at the end of the test none may have broken a rule of the contract."""
    violations: list[str] = []
    validator = protovalidate.Validator()

    def see(message: Message) -> None:
        violations.extend(f"{type(message).__name__}: {one}" for one in validator.collect_violations(message))

    yield see
    assert not violations
