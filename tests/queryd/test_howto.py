"""The code of docs/howto/query_from_python.md is run as it stands, against a queryd with blocks as in the example."""

import json
import re
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from tests.queryd.fake_datasets import FakeDatasets
from tests.queryd.harness import QuerydProcess

_PAGE = Path(__file__).parents[2] / "docs" / "howto" / "query_from_python.md"
_FIRST, _BLOCKS = 500_000, 20


@pytest.fixture
def queryd(tmp_path: Path) -> Iterator[QuerydProcess]:
    datasets = FakeDatasets(tmp_path / "artifacts")
    datasets.add(
        "eth.blocks",
        schema={"number": "int64", "miner": "string", "difficulty": "decimal(38,0)", "gas_used": "int64"},
    )
    datasets.publish("eth.blocks", _blocks())
    datasets.move_watermark("eth.blocks", str(_FIRST + _BLOCKS - 1))
    with QuerydProcess(tmp_path, datasets) as process:
        yield process


def _blocks() -> pa.Table:
    return pa.table(
        {
            "number": range(_FIRST, _FIRST + _BLOCKS),
            "miner": [f"m{number % 2}" for number in range(_BLOCKS)],
            "difficulty": pa.array([Decimal(10**6 + number) for number in range(_BLOCKS)], pa.decimal128(38, 0)),
            "gas_used": range(_BLOCKS),
        }
    )


def test_the_pages_code_runs_as_it_stands_there(
    queryd: QuerydProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _home(tmp_path / ".trace", queryd)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(compile(_code(), str(_PAGE), "exec"), names)  # noqa: S102 -- it is our own page
    assert "[(1,)]\n500000 m0 1000000\n500001 m1 1000001\n" in capsys.readouterr().out
    assert names["some"]["gas_used"].to_pylist() == list(range(1, _BLOCKS))
    assert names["gas"] == sum(range(_BLOCKS))
    assert names["pandas_frame"].to_dict("list") == {"miner": ["m0", "m1"], "blocks": [10, 10]}
    assert names["polars_frame"].to_dicts() == [{"miner": "m0", "blocks": 10}, {"miner": "m1", "blocks": 10}]
    assert names["cost"] == [("m0", 21 * sum(range(0, _BLOCKS, 2))), ("m1", 21 * sum(range(1, _BLOCKS, 2)))]
    assert names["count_as_of_deploy_1"] == _BLOCKS
    assert names["newest"] == _FIRST + _BLOCKS - 1
    assert names["table"].equals(_blocks())
    assert names["again"].to_pylist() == [{"blocks": _BLOCKS}]
    assert 'line 1, column 8: Binder error: Referenced column "gas" not found' in names["message"]


def _home(home: Path, queryd: QuerydProcess) -> None:
    """A stack's home, as far as a client reads it."""
    home.mkdir()
    token = home / "user.token"
    token.write_text(queryd.user_token + "\n")
    document = {"query": queryd.address, "credentials": {"user": str(token)}}
    (home / "endpoints.json").write_text(json.dumps(document))


def _code() -> str:
    """The page's Python, each line where it stands in the page, so that a traceback says where."""
    page = _PAGE.read_text()
    lines = [""] * page.count("\n")
    for block in re.finditer(r"```python\n(.*?)```", page, re.DOTALL):
        first = page.count("\n", 0, block.start(1))
        code = block[1].splitlines()
        lines[first : first + len(code)] = code
    return "\n".join(lines)
