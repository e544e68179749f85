"""The hot statements find their rows by the indexes that they name, on tables of 10^5 rows with fresh statistics."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from dispatcher.datasets.rows import Bounds
from dispatcher.datasets.store import BEFORE_ALL
from dispatcher.db.pool import Pool
from dispatcher.db.statements import Statements
from dispatcher.events.store import DAG_LOCK_CLASS
from tests.dispatcher.filled import ROWS, Given, filled_dispatcher, given
from tests.dispatcher.filled import check as _check
from tests.dispatcher.in_process import InProcess
from tests.dispatcher.plans import plan_of

pytestmark = pytest.mark.slow


@pytest_asyncio.fixture
async def filled(pool: Pool, tmp_path: Path) -> AsyncIterator[InProcess]:
    async with filled_dispatcher(pool, tmp_path) as dispatcher:
        yield dispatcher


async def test_hot_statements_use_their_indexes(filled: InProcess) -> None:
    about = await given(filled)
    await _check_releases(filled, about)
    await _check_leases(filled, about)
    await _check_emits(filled, about)
    await _check_reads(filled, about)


async def _check_releases(filled: InProcess, given: Given) -> None:
    wakeups = Statements.load("dispatcher.wakeups")
    await _check(filled, {"task_queued"}, wakeups.job_lines, queue="default", room=500, limited=[given.job])
    await _check(filled, {"task_queued", "task_pkey"}, wakeups.release, **_dealt(given.job, 500))
    # task_open or task_released: both lead to what is out.
    await _check(filled, set(), wakeups.withdraw, job_version_ids=[given.job], limit=500)
    await _check(filled, {"task_released"}, wakeups.release_again, queue="default", room=500, unanswered="10 s")
    here = {"dataset_id": "copies", "first": given.keys[0][1], "last": given.keys[0][1]}
    indexes = {"task_queued", "task_open", "event_scope", "task_cause"}
    await _check(filled, indexes, wakeups.producing_task, **here)
    lookout = Statements.load("dispatcher.wakeups", "lookout.sql")
    due = {"task_leased", "task_backoff", "task_released", "task_queued"}
    await _check(filled, due, lookout.due, unanswered="10 s")


async def _check_leases(filled: InProcess, given: Given) -> None:
    tasks, claims = Statements.load("dispatcher.tasks"), Statements.load("dispatcher.tasks", "claim.sql")
    await _check(filled, {"task_pkey"}, tasks.lock_tasks, task_ids=given.some)
    await _check(filled, {"task_pkey"}, claims.claimed, task_ids=given.some)
    claim = {
        "stream_epochs": [None] * 50,
        "job_version_ids": [given.job],
        "pins": [None],
        "worker_id": "w",
        "request_id": given.job,
        "lease": "60 s",
    }
    await _check(filled, {"task_pkey"}, claims.mark_claimed, task_ids=given.some, token_digest=b"x", **claim)
    await _check(
        filled,
        {"task_queued", "task_open"},
        claims.run_candidates,
        job_version_id=given.stream,
        stream_key="",
        limit=500,
    )
    await _check(filled, {"task_leased"}, tasks.expired_tasks, task_ids=given.some, limit=500)
    await _check(filled, {"task_backoff"}, tasks.end_backoffs, task_ids=given.some, limit=500)
    beat = {"attempts": [1] * 50, "token_digests": [b"x"] * 50, "progresses": [None] * 50, "lease": "60 s"}
    await _check(filled, {"task_pkey"}, tasks.extend_leases, task_ids=given.some, **beat)
    told = {name: beat[name] for name in ("attempts", "token_digests", "progresses")}
    await _check(filled, {"task_pkey"}, tasks.note_progress, task_ids=given.some, **told)
    await _check(filled, {"task_leased"}, tasks.run_members, job_version_id=given.stream, stream_key="", epoch=1)


async def _check_emits(filled: InProcess, given: Given) -> None:
    events = Statements.load("dispatcher.events")
    key = {
        "version_ids": [given.version] * 50,
        "task_ids": [str(task_id) for task_id, _ in given.keys],
        "firsts": [first for _, first in given.keys],
        "lasts": [first for _, first in given.keys],
        "kinds": [1] * 50,
        "revisions": [0] * 50,
    }
    await _check(filled, {"event_key|event_scope"}, events.existing_events, **key)  # here both lead to one row
    spans = {name: key[name] for name in ("version_ids", "task_ids", "firsts")}
    await _check(filled, {"event_key"}, events.taken_spans, lasts=[b"\xff" * 9] * 50, **spans)
    extents = {name: key[name] for name in ("version_ids", "firsts", "lasts")}
    await _check(filled, {"artifact_scope"}, events.nearest_artifacts, **extents)
    await _check(filled, set(), events.insert_events, **_inserts(key), publication_id=given.job)
    await _check(filled, {"task_queued", "task_open"}, events.derived_watermarks)
    ids = [str(row[0]) for row in await filled.rows("select artifact_id from artifact limit 20")]
    await _check(
        filled,
        {"artifact_scope", "artifact_pkey"},
        events.remove_replaced,
        artifact_ids=ids,
        version_ids=[given.version],
        publication_ids=[given.job],
    )
    await _check(filled, {"artifact_scope", "artifact_pkey"}, events.overlapping_artifacts, artifact_ids=ids)


async def _check_reads(filled: InProcess, given: Given) -> None:
    """Replays, and the files and events of a pin."""
    events, datasets = Statements.load("dispatcher.events"), Statements.load("dispatcher.datasets")
    replays = Statements.load("dispatcher.events", "replay.sql")
    replay = {"replay_key": given.keys[0][1], "replay_event_id": given.job, "limit": 2000}
    replay |= {"after_number": 0, "from_number": ROWS, "input_version_id": given.version, "job_version_id": given.job}
    for instead_of in (None, given.version):
        await _check(filled, {"event_scope"}, replays.replay_events, instead_of_version_id=instead_of, **replay)
    for bounds in (Bounds(given.keys[0][1], given.keys[0][1]), Bounds(given.keys[0][1], given.keys[9][1])):
        page = {"lower": bounds.lower, "upper": bounds.upper, "after_first": b"", "after_id": BEFORE_ALL}
        request = {"version_id": given.version, "number": ROWS, "limit": 1000, **page}
        await _check(filled, {"artifact_scope"}, datasets.visible_artifacts, **request)
        await _check(filled, {"event_scope"}, datasets.visible_events, **request)
    await _check(filled, set(), events.share_dags, job_version_ids=[given.job], **{"class": DAG_LOCK_CLASS})


async def test_a_live_task_is_found_without_passing_a_backlog(filled: InProcess) -> None:
    """10^4 live tasks wait and 10^5 of a backfill, with lower scopes: what a round reads depends on its room alone."""
    wakeups = Statements.load("dispatcher.wakeups")
    job = await filled.value("select job_version_id::text from job_version where job = 'copies'")
    await filled.run(
        "insert into task (task_id, job_version_id, event_id, origin, scope_kind, scope_first, scope_last)"
        " select uuidv7(), %s, gen_random_uuid(), 'backfill', 1, int8send(n), int8send(n)"
        " from generate_series(1, 100000) n",
        job,
    )
    await filled.run("analyze task")
    queue = {"queue": "default", "room": 50, "limited": []}
    assert await _rows_read(filled, wakeups.job_lines, "task_queued", **queue) <= 50 * 5
    assert await _rows_read(filled, wakeups.release, "task_queued", **_dealt(job, 50)) <= 50
    # The planner takes a round for a tenth of what is queued: as a join, it would read a table of a million tasks.
    update, *_ = await plan_of(filled, wakeups.release, analyze=False, **_dealt(job, 50))
    assert (update["Plans"][-1]["Node Type"], update["Plans"][-1]["Index Name"]) == ("Index Scan", "task_pkey")


@pytest.mark.parametrize("page", [0, 50_000])
async def test_a_page_of_a_re_run_reads_no_more_than_it_takes(filled: InProcess, page: int) -> None:
    reruns = Statements.load("dispatcher.deploy", "reruns.sql")
    job = await filled.value("select job_version_id::text from job_version where job = 'copies'")
    top = b"\xff" * 9
    after = {"after_first": (page + 2**63).to_bytes(8, "big"), "after_id": BEFORE_ALL, "limit": 1000}
    scopes = {"job_version_id": job, "last": top, **after}
    assert await _rows_read(filled, reruns.page_of_scopes, "event_scope", **scopes) <= 1_000
    (task_id,) = await filled.rows("select task_id::text from task order by task_id offset %s limit 1", page)
    chosen = {"task_ids": None, "dag": None, "job": "copies", "states": None, "first": None, "last": None}
    place = {"after": task_id[0], "before": "ffffffff-ffff-7fff-bfff-ffffffffffff", "limit": 1000}
    nodes = await plan_of(filled, reruns.page_of_ended, analyze=True, **chosen, **place)
    read = [n["Actual Rows"] * n["Actual Loops"] for n in nodes if n.get("Relation Name") == "task"]
    assert sum(read) <= 4 * 1_000  # of four jobs' tasks


async def test_a_watermark_is_derived_without_passing_what_is_run_again(filled: InProcess) -> None:
    """10^5 scopes below the watermark are run again: what the duty reads does not depend on them."""
    events = Statements.load("dispatcher.events")
    job = await filled.value("select job_version_id::text from job_version where job = 'copies'")
    await filled.run(
        "insert into task (task_id, job_version_id, event_id, origin, scope_kind, scope_first, scope_last, revision)"
        " select uuidv7(), %s, event_id, 'backfill', 1, scope_first, scope_last, 1 from event",
        job,
    )
    await filled.run(
        "insert into watermark (dataset_version_id, cursor_key)"
        " select dataset_version_id, int8send(90000 # (-9223372036854775808))"
        " from dataset_version where dataset_id = 'copies'"
    )
    await filled.run("analyze task")
    assert await _rows_read(filled, events.derived_watermarks, "task_queued") <= 1_000


async def _rows_read(dispatcher: InProcess, statement: str, index: str, **parameters: Any) -> int:
    """Rows that the statement takes from an index, those that a condition removes included."""
    nodes = await plan_of(dispatcher, statement, analyze=True, **parameters)
    return sum(
        round((node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"])
        for node in nodes
        if node.get("Index Name") == index
    )


def _dealt(job: str, tasks: int) -> dict[str, object]:
    top = b"\xff" * 9
    return {"job_version_ids": [job], "origins": ["live"], "counts": [tasks], "covered": [top], "before": [top]}


def _inserts(key: dict[str, Any]) -> dict[str, Any]:
    return {
        **key,
        "event_ids": key["task_ids"],
        "parts": list(range(1, 51)),
        "attempts": [1] * 50,
        "artifact_ids": [None] * 50,
        "digests": [b"x"] * 50,
        "manifests": [None] * 50,
        "event_times": [None] * 50,
        "origins": ["live"] * 50,
    }
