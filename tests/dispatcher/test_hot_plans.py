"""Every statement of the hot path is explained on tables of 10^5 rows, here or in `test_plans`, or excused by name."""

import re
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import pytest_asyncio

from dispatcher.db.pool import Pool
from dispatcher.db.statements import Statements
from tests.dispatcher.filled import Given, check, filled_dispatcher, given
from tests.dispatcher.in_process import InProcess

ELSEWHERE = Path(__file__).with_name("test_plans.py")
FIFTY = 50
KEYS = [f"key {number}" for number in range(1, FIFTY + 1)]

Source = tuple[str, str]
TASKS: Source = ("dispatcher.tasks", "queries.sql")
CLAIMS: Source = ("dispatcher.tasks", "claim.sql")
EVENTS: Source = ("dispatcher.events", "queries.sql")
WAKEUPS: Source = ("dispatcher.wakeups", "queries.sql")
QUEUES: Source = ("dispatcher.wakeups", "queues.sql")
LOOKOUT: Source = ("dispatcher.wakeups", "lookout.sql")
SQS: Source = ("dispatcher.wakeups", "sqs.sql")
CALLED: Mapping[Source, str] = {
    TASKS: "tasks",
    CLAIMS: "claims",
    EVENTS: "events",
    WAKEUPS: "wakeups",
    QUEUES: "queues",
    LOOKOUT: "lookout",
    SQS: "sqs",
}
"""The hot files, and what `test_plans` calls their statements."""

EXCUSED: Mapping[Source, Mapping[str, str]] = {
    TASKS: {
        "ensure_streams": "reads no table",
        "retry_policies": "reads only what is deployed",
    },
    CLAIMS: {
        "job_settings": "reads only what is deployed",
        "input_heads": "reads only what is deployed",
        "job_details": "reads only what is deployed",
    },
    EVENTS: {
        "job_outputs": "reads only what is deployed",
        "consumers": "reads only what is deployed",
        "lock_unfrozen": "reads only what is deployed",
        "freeze_schemas": "reads only what is deployed",
        "insert_artifacts": "reads no table",
        "watermarks": "reads one row for each dataset version",
    },
    WAKEUPS: {"own_limits": "reads only what is deployed"},
    QUEUES: {
        "queues": "reads one row for each queue and dispatcher",
        "own_queue": "reads one row for each queue",
        "set_queue": "reads no table",
        "report_queues": "reads one row for each queue and dispatcher",
    },
}


class Plan(NamedTuple):
    """The indexes that a statement has to use, `a|b` for one of the two, and what it is asked. Half of what runs is
    asked about here, so that the index of all that runs serves as well as the primary key."""

    indexes: set[str]
    parameters: Callable[[Given], dict[str, Any]]


def _tasks(about: Given) -> dict[str, Any]:
    return {"task_ids": about.some}


def _streams(about: Given) -> dict[str, Any]:
    return {"job_version_ids": [about.stream] * FIFTY, "stream_keys": KEYS}


def _ends(about: Given) -> dict[str, Any]:
    each = {
        "states": "succeeded",
        "failed": 0,
        "lost": 0,
        "waits": timedelta(),
        "reasons": "",
        "outcomes": "succeeded",
        "error_classes": None,
        "messages": "",
        "tracebacks": "",
        "usages": None,
        "accepted": None,
        "differs": False,
    }
    return {"running": "running", **_tasks(about), **{name: [value] * FIFTY for name, value in each.items()}}


PLANS: Mapping[Source, Mapping[str, Plan]] = {
    TASKS: {
        "job_versions_of": Plan({"task_pkey"}, _tasks),
        "lock_streams": Plan({"ordered_stream_pkey"}, _streams),
        "read_tasks": Plan({"task_pkey"}, _tasks),
        "advance_streams": Plan({"task_pkey", "ordered_stream_pkey"}, _tasks),
        "operator_states": Plan({"operator_state_pkey"}, _streams),
        "failures_of_class": Plan(
            {"attempt_pkey"}, lambda of: {**_tasks(of), "error_classes": ["user"] * FIFTY, "counts": [2] * FIFTY}
        ),
        "record_ends": Plan({"task_pkey|task_leased"}, _ends),
        "ended_attempts": Plan({"attempt_pkey"}, lambda of: {**_tasks(of), "attempts": [1] * FIFTY}),
        "free_streams": Plan({"ordered_stream_pkey|ordered_stream_leased", "task_leased|task_open"}, _streams),
        "extend_streams": Plan(
            {"ordered_stream_pkey"},
            lambda of: {**_streams(of), "epochs": [1] * FIFTY, "token_digests": [b"x"] * FIFTY, "lease": "60 s"},
        ),
        "standing": Plan({"task_pkey", "ordered_stream_pkey"}, _tasks),
        "expired_streams": Plan({"ordered_stream_leased"}, lambda _of: {"limit": 1}),
        "fan_outs": Plan({"task_pkey"}, _tasks),
    },
    CLAIMS: {
        "followed_tasks": Plan({"task_pkey", "event_pkey"}, _tasks),
        "count_passed": Plan({"task_pkey", "event_pkey"}, _tasks),
        "pass_late": Plan({"task_pkey"}, lambda of: {**_tasks(of), "state": "dead", "reason": "late"}),
        "lease_stream": Plan(
            {"ordered_stream_pkey"},
            lambda of: {
                "job_version_id": of.stream,
                "stream_key": KEYS[0],
                "worker_id": "w",
                "request_id": of.job,
                "token_digest": b"x",
                "lease": "60 s",
            },
        ),
        "spent_claims": Plan({"attempt_pkey"}, lambda of: {**_tasks(of), "request_id": of.job}),
    },
    EVENTS: {
        "existing_artifacts": Plan(
            {"artifact_object_key_key"}, lambda _of: {"object_keys": [f"data/{number}" for number in range(FIFTY)]}
        ),
        "record_emits": Plan(
            {"task_pkey"}, lambda of: {**_tasks(of), "accepted": [1] * FIFTY, "differs": [False] * FIFTY}
        ),
        "record_refusals": Plan({"task_pkey|task_leased"}, _tasks),
        "write_states": Plan(set(), lambda of: {**_streams(of), "datas": [b"x"] * FIFTY, "versions": [2] * FIFTY}),
        "move_watermarks": Plan(set(), lambda of: {"version_ids": [of.version], "cursor_keys": [b"x"]}),
        "publish": Plan(
            set(), lambda of: {"version_ids": [of.version], "publication_ids": [of.job], "event_counts": [1]}
        ),
        "find_events": Plan(
            {"event_pkey", "publication_pkey"},
            lambda _of: {"before": None, "dataset_id": None, "first": None, "last": None, "limit": 100},
        ),
        "events_of_task": Plan({"task_pkey", "event_key"}, lambda of: {"task_id": of.some[0], "limit": 100}),
    },
    WAKEUPS: {"hold_facts": Plan({"task_pkey", "task_leased|task_open"}, lambda of: {"task_id": of.some[0]})},
    QUEUES: {
        "class_uses": Plan(
            {"task_queued"}, lambda _of: {"origins": ["live", "replay", "backfill"], "most": 10_000, "queue": "default"}
        )
    },
    SQS: {"count_unanswered": Plan({"task_released"}, lambda _of: {"unanswered": "10 s"})},
}


@pytest_asyncio.fixture
async def filled(pool: Pool, tmp_path: Path) -> AsyncIterator[InProcess]:
    async with filled_dispatcher(pool, tmp_path) as dispatcher:
        yield dispatcher


@pytest.mark.slow
async def test_hot_statements_use_their_indexes(filled: InProcess) -> None:
    about = await given(filled)
    wrong: dict[str, str] = {}
    for (package, file), plans in PLANS.items():
        statements = Statements.load(package, file)
        for name, plan in plans.items():
            try:
                await check(filled, plan.indexes, statements[name], **plan.parameters(about))
            except AssertionError as error:
                wrong[f"{package}/{file}: {name}"] = str(error)
    assert not wrong, "\n".join(f"{name}: {why}" for name, why in wrong.items())


@pytest.mark.parametrize("source", CALLED, ids="/".join)
def test_no_hot_statement_is_left_out(source: Source) -> None:
    here, excused = PLANS.get(source, {}).keys(), EXCUSED.get(source, {}).keys()
    elsewhere = set(re.findall(rf"\b{CALLED[source]}\.([a-z_]+)\b", ELSEWHERE.read_text()))
    named = set(Statements.load(*source))
    assert named - here - elsewhere - excused == set()
    assert (here | excused) <= named
    assert not (here | elsewhere) & excused
