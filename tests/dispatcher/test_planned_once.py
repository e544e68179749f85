"""What the hot path plans once for a connection: by an index of each large table, whatever is in the tables then."""

import json
import re
from collections.abc import Mapping
from typing import Any

import pytest

from dispatcher.db.pool import transaction
from dispatcher.db.statements import Statements
from tests.dispatcher.builders import CHAIN, READER
from tests.dispatcher.in_process import InProcess

COUNTED = {"task_released", "task_leased"}
"""Indexes of what is out now, which a round of releases counts."""
SHORT = {"(r.job_version_id = p.job_version_id)", "(w.dataset_version_id = e_1.dataset_version_id)"}
"""Joins of the job versions of a claim, and of the versions of one dataset that a job has followed."""
LARGE = {"task", "attempt", "event", "artifact", "publication"}
_PARAMETER = re.compile(r"%\((\w+)\)s")

PLANNED_ONCE: Mapping[tuple[str, str], tuple[str, ...]] = {
    ("dispatcher.tasks", "queries.sql"): ("job_versions_of", "lock_streams", "lock_tasks", "operator_states"),
    ("dispatcher.tasks", "claim.sql"): (
        "job_settings",
        "input_heads",
        "spent_claims",
        "mark_claimed",
        "claimed",
        "job_details",
    ),
    ("dispatcher.wakeups", "queries.sql"): ("own_limits", "job_lines", "withdraw", "release", "release_again"),
    ("dispatcher.datasets", "queries.sql"): ("pin_now",),
}
# Ends are planned anew where Postgres thinks better of it; both ways they have to find their tasks by their ids.
EITHER_WAY: Mapping[tuple[str, str], tuple[str, ...]] = {
    ("dispatcher.tasks", "queries.sql"): ("record_ends", "ended_attempts", "failures_of_class", "standing"),
    ("dispatcher.events", "queries.sql"): (
        "taken_spans",
        "existing_events",
        "existing_artifacts",
        "insert_events",
        "record_emits",
    ),
}


@pytest.mark.parametrize(
    ("package", "file", "name"),
    [
        (*source, name)
        for statements in (PLANNED_ONCE, EITHER_WAY)
        for source, names in statements.items()
        for name in names
    ],
)
async def test_a_statement_of_the_hot_path_reads_large_tables_by_an_index(
    dispatcher: InProcess, package: str, file: str, name: str
) -> None:
    await dispatcher.deploy(CHAIN)
    await dispatcher.deploy(READER)
    nodes = await _planned_once(dispatcher, Statements.load(package, file)[name])
    read = [node for node in nodes if node.get("Relation Name") in LARGE and node["Node Type"] != "ModifyTable"]
    all_of_it = {node.get("Index Name", node["Node Type"]) for node in read if not _bounded(node)}
    assert all_of_it <= (COUNTED if package == "dispatcher.wakeups" else set())
    if package != "dispatcher.wakeups":  # and no array is gone through for each element of another
        loops = [node for node in nodes if node["Node Type"] == "Nested Loop" and "Join Filter" in node]
        assert not [node["Join Filter"] for node in loops if node["Join Filter"] not in SHORT]


def _bounded(node: dict[str, Any]) -> bool:
    return "Index Cond" in node or node["Node Type"] == "Bitmap Heap Scan"  # whose index scan is a node of its own


async def _planned_once(dispatcher: InProcess, statement: str) -> list[dict[str, Any]]:
    """The nodes of the plan that a connection keeps: made for no values, while the tables are as good as empty."""
    numbers: dict[str, str] = {}
    text = _PARAMETER.sub(lambda found: numbers.setdefault(found[1], f"${len(numbers) + 1}"), statement)
    async with transaction(dispatcher.pool) as connection:
        await connection.execute("set local enable_seqscan = off")
        cursor = await connection.execute(
            f"explain (generic_plan, format json) {text.replace('%%', '%')}", prepare=False
        )
        ((found,),) = await cursor.fetchall()
    nodes = []
    stack = [(found if isinstance(found, list) else json.loads(found))[0]["Plan"]]
    while stack:
        nodes.append(node := stack.pop())
        stack += node.get("Plans", [])
    return nodes
