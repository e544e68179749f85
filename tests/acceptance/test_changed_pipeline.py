"""A pipeline that is changed and taken back while data flow through it, by the commands that a person types."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.acceptance.conftest import RunningStack

pytestmark = pytest.mark.acceptance

COUNT, RANGE = 1_200, 50

DOCUMENT = """
dag: sums
jobs:
  numbers:
    source: replay
    config: {path: numbers.csv, cursor: number, rate: 250, until: 1199}
    outputs:
      s.numbers: {cursor: {column: number, type: int64}, schema: {number: int64, value: int64}}
  ranges:
    operator: aggregator
    config: {size: 50}
    inputs: {s.numbers: {}}
    outputs: {s.ranges: {storage: none}}
  sums:
    operator: sql
    config: {sql: 'select min(number) as number, sum(value)::decimal(38,0) as total, 1 as version from "s.numbers"'}
    inputs: {s.ranges: {}, s.numbers: {trigger: false}}
    outputs: {s.sums: {schema: {number: int64, total: "decimal(38,0)", version: int32}}}
  doubled:
    operator: sql
    config: {sql: 'select number, total * 2 as total, version from "s.sums"'}
    inputs: {s.sums: {}}
    outputs: {s.doubled: {schema: {number: int64, total: "decimal(38,0)", version: int32}}}
"""
CHANGED = DOCUMENT.replace("1 as version", "2 as version")
QUERY = (
    "select s.number, s.total, d.total as doubled, s.version, d.version as doubled_version"
    ' from "s.sums" s full join "s.doubled" d using (number) order by 1'
)


@pytest.fixture
def document(tmp_path: Path) -> Path:
    folder = tmp_path / "sums"
    folder.mkdir()
    lines = [f"{number},{number * 7 % 1009}" for number in range(COUNT)]
    (folder / "numbers.csv").write_text("\n".join(["number,value", *lines]) + "\n")
    (folder / "dag.yaml").write_text(DOCUMENT)
    return folder / "dag.yaml"


def expected(version: int) -> list[dict[str, str | int]]:
    rows: list[dict[str, str | int]] = []
    for first in range(0, COUNT, RANGE):
        total = sum(number * 7 % 1009 for number in range(first, first + RANGE))
        rows.append(
            {
                "number": first,
                "total": str(total),
                "doubled": str(total * 2),
                "version": version,
                "doubled_version": version,
            }
        )
    return rows


def test_a_change_goes_in_and_comes_out_again_while_data_flow(
    start_stack: Callable[..., RunningStack], document: Path
) -> None:
    stack = start_stack()

    def run(*arguments: str) -> str:
        ended = stack.tracectl(*arguments)
        assert ended.returncode == 0, ended.stderr + stack.logs()
        return ended.stdout

    def rows() -> list[dict[str, str | int]]:
        found = [json.loads(line) for line in run("query", QUERY, "--output", "json").splitlines()]
        return [{name: str(row[name]) if name in ("total", "doubled") else row[name] for name in row} for row in found]

    run("dag", "deploy", str(document))
    document.write_text(CHANGED)
    refused = stack.tracectl("dag", "deploy", str(document))
    assert (refused.returncode, "give --yes" in refused.stderr) == (2, True), "nobody can be asked"
    run("dag", "deploy", str(document), "--wait", "--yes")
    seen = rows()
    assert {row["version"] for row in seen} <= {2}
    run("dag", "rollback", "sums", "--yes")
    assert {row["version"] for row in rows()} <= {1}
    run("dag", "watch", "sums")
    assert rows() == expected(1), "as if it had never been changed"
    run("dag", "rollback", "sums", "--yes", "--wait")
    run("dag", "watch", "sums")
    assert rows() == expected(2)
    again = run("backfill", "sums", "--from", "100", "--to", "249", "--yes", "--wait", "--output", "json")
    assert json.loads(again)["taskCount"] == "3"
    assert rows() == expected(2), "what was run again took the place of what was there"
    done = json.loads(run("task", "ls", "--job", "doubled", "--scope", "100", "--output", "json"))["tasks"][0]
    assert (done["origin"], done["scope"]["revision"]) == ("TASK_ORIGIN_BACKFILL", "1"), "and downstream followed"
    listed = json.loads(run("dag", "versions", "sums", "--output", "json"))["deployments"]
    assert [(one["version"], one["state"]) for one in listed] == [
        ("2", "DEPLOYMENT_STATE_ACTIVE"),
        ("1", "DEPLOYMENT_STATE_ROLLED_BACK"),
    ]
