"""The dataset that queries of `make bench-query` read: 10^7 rows of five columns, made by a pipeline, in ten files."""

import json

from bench.stack import Stack, wait_until

DATASET = "wide.rows"
_EVENTS = 10
_SECONDS = 600.0
_SQL = """
select e.number, e.number * ROWS + r.range as id, (r.range * 7919) % 1000003 as amount, (r.range % 977) / 7.0 as price,
    make_timestamp(1700000000000000 + r.range * 1000) at time zone 'UTC' as time
from "wide.events" e, range(ROWS) r
"""


def make(stack: Stack, rows: int) -> None:
    """Deploys it, and returns when its rows can be read."""
    numbers = {"cursor": {"column": "number", "type": "int64"}, "schema": {"number": "int64"}}
    columns = {"number": "int64", "id": "int64", "amount": "int64", "price": "double", "time": "timestamp"}
    jobs = {
        "events": {
            "source": "replay",
            "config": {"path": "events.csv", "cursor": "number"},
            "outputs": {"wide.events": numbers},
        },
        "rows": {
            "operator": "sql",
            "config": {"sql": _SQL.replace("ROWS", str(rows // _EVENTS))},
            "inputs": {"wide.events": {}},
            "outputs": {DATASET: {"schema": columns}},
        },
    }
    events = "number\n" + "".join(f"{number}\n" for number in range(_EVENTS))
    stack.deploy(json.dumps({"dag": "wide", "jobs": jobs}), {"events.csv": events})
    with stack.database() as database:

        def made() -> bool:
            row = database.execute(
                "select coalesce(sum(a.row_count), 0) from artifact a join dataset_version v using (dataset_version_id)"
                " where v.dataset_id = %s",
                (DATASET,),
            ).fetchone()
            return row is not None and row[0] == rows // _EVENTS * _EVENTS

        wait_until(made, _SECONDS, f"{rows:,} rows of {DATASET}")


def files(stack: Stack) -> list[str]:
    """The Parquet files of it, on this machine's disk."""
    root = stack.home.root / "artifacts"
    with stack.database() as database:
        found = database.execute(
            "select a.object_key from artifact a join dataset_version v using (dataset_version_id)"
            " where v.dataset_id = %s order by a.scope_first",
            (DATASET,),
        ).fetchall()
    return [str(root / key) for (key,) in found]
