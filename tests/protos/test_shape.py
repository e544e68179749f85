"""The contracts stay readable: a file has one service at most, and is short."""

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2] / "protos"


@pytest.mark.parametrize("path", sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("traceapi/**/*.proto")))
def test_a_contract_is_one_service_in_less_than_four_hundred_lines(path: str) -> None:
    lines = (ROOT / path).read_text(encoding="utf-8").splitlines()
    assert len(lines) < 400
    assert sum(line.startswith("service ") for line in lines) <= 1
