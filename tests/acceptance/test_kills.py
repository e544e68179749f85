"""SIGKILL of the wrapper and of the dispatcher, at twenty seeded moments each: afterwards nothing shows that it
happened.

Each moment is a number of accepted events and a consumer, both from a seed. What is asserted of each kill, because one
that hit nothing would prove nothing: at its moment

* a task of that consumer was **leased**. Asked of tasks and streams: it runs, it was caused by an event (a source's run
  is caused by none and does not count), its lease, its own or its stream's, is valid by the database's clock, and the
  wrapper that lives now has claimed it. A lease that a killed wrapper left behind is no work that a kill could hit.
* an event of that consumer was **unacknowledged**. Asked of events and subscriptions, whatever is leased: it is
  published, the consumer is owed it, and no task of the consumer has succeeded for it. Success acknowledges an event.

In a database that is right the event of a leased task is one of the second. That is asserted too, and it can fail: for
a lease on an event that has been acknowledged, is published nowhere, or is owed to nobody. Events whose emit is under
way are in no table; programs that die there, between a write, its commit and its answer, are what `make chaos` is for.

A task that has lost some leases already is left to end before the next kill: a task that loses ten is DEAD, rightly.
Both programs stand still (SIGSTOP) and no session of theirs is busy while the database is asked, so that nothing can
change between the answer and the kill.
"""

import random
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pyarrow.parquet as pq
import pytest

from ctl.commands.dag import deploy_document
from ctl.document import Document
from tests.acceptance.programs import Programs, running_programs

pytestmark = [pytest.mark.acceptance, pytest.mark.faults]

EVENTS = 800
KILLS = 20
PROGRAMS = frozenset({"dispatcher", "wrapper"})
# A worker's death is noticed by its lease; a dispatcher's outage should be shorter than the leases that it cannot
# extend.
SETTINGS = {
    "wrapper": {"TRACE_LEASE_SECONDS": "1.5", "TRACE_UNANSWERED_WAKEUP_SECONDS": "2"},
    "dispatcher": {"TRACE_LEASE_SECONDS": "8", "TRACE_UNANSWERED_WAKEUP_SECONDS": "2"},
}
DEADLINE = 240.0

DOCUMENT = """
dag: kills
jobs:
  numbers:
    source: replay
    config: {path: numbers.csv, cursor: number, rate: 160, until: 799}
    outputs:
      k.numbers:
        cursor: {column: number, type: int64}
        schema: {number: int64, value: int64}
  ranges:
    operator: aggregator
    config: {size: 25}
    inputs: {k.numbers: {}}
    outputs: {k.ranges: {storage: none}}
  sums:
    operator: sql
    config: {sql: 'select min(number) as number, sum(value)::decimal(38,0) as total from "k.numbers"'}
    inputs:
      k.ranges: {}
      k.numbers: {trigger: false}
    outputs:
      k.sums: {schema: {number: int64, total: "decimal(38,0)"}}
  units:
    operator: splitter
    inputs: {k.ranges: {}}
    outputs: {k.units: {storage: none}}
"""

CONSUMERS = ("ranges", "sums", "units")
AT_REST = """
select not exists (
    select 1 from pg_stat_activity
    where backend_type = 'client backend' and state = 'active' and pid <> pg_backend_pid()
)
"""
NONE_IS_NEAR_ITS_END = "select not exists (select 1 from task where state <> 'succeeded' and lost_leases >= 8)"
LEASED = """
select t.event_id
from task t
join job_version j using (job_version_id)
left join ordered_stream o on (o.job_version_id, o.stream_key, o.epoch)
    = (t.job_version_id, t.stream_key, t.stream_epoch)
where j.job = %(consumer)s and t.state = 'running' and t.event_id is not null
    and coalesce(t.lease_until, o.lease_until) > clock_timestamp() and t.started_at >= %(since)s
"""
UNACKNOWLEDGED = """
select e.event_id
from event e
join publication p using (publication_id)
join subscription s on s.input_version_id = e.dataset_version_id
    and p.number > s.from_number and p.number <= coalesce(s.to_number, p.number)
join job_version j on j.job_version_id = s.job_version_id
where j.job = %(consumer)s and not exists (
    select 1 from any_task t where (t.event_id, t.job_version_id, t.state) = (e.event_id, j.job_version_id, 'succeeded')
)
"""
NOW = "select clock_timestamp()"
PROGRESS = "select count(*) from event"
DONE = """
select j.job, count(*) from any_task t join job_version j using (job_version_id) where t.state = 'succeeded' group by 1
"""
STATES = """
select j.job, t.state::text, count(*), max(t.lost_leases)
from any_task t join job_version j using (job_version_id) group by 1, 2
"""
FINISHED = """
select count(*) filter (where state = 'succeeded') = count(*) and count(*) >= %(tasks)s from any_task
"""
TASKS_OF = {"ranges": EVENTS, "sums": EVENTS // 25, "units": EVENTS // 25}
TASKS = 1 + sum(TASKS_OF.values())
UNDELIVERED = """
select count(*) from event e
join subscription s on s.input_version_id = e.dataset_version_id
left join any_task t on t.event_id = e.event_id and t.job_version_id = s.job_version_id
where t.task_id is null
"""


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("document")
    numbers = random.Random(7)
    lines = [f"{number},{numbers.randrange(10**12)}" for number in range(EVENTS)]
    (folder / "numbers.csv").write_text("\n".join(["number,value", *lines]) + "\n")
    (folder / "dag.yaml").write_text(DOCUMENT)
    return folder / "dag.yaml"


@pytest.fixture(scope="module")
def undisturbed(document: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    with running_programs(tmp_path_factory.mktemp("undisturbed") / "home", SETTINGS["dispatcher"]) as (
        programs,
        database,
    ):
        deploy(programs, document)
        wait_until(programs, lambda: one(database, FINISHED, tasks=TASKS), "everything has succeeded")
        return outcome(programs, database)


@pytest.mark.timeout(400)
@pytest.mark.parametrize(("victim", "seed"), [("wrapper", 11), ("dispatcher", 12)])
def test_kills_leave_no_trace_in_the_results(
    victim: str, seed: int, document: Path, undisturbed: dict[str, Any], tmp_path: Path
) -> None:
    moments = random.Random(seed)
    with running_programs(tmp_path / "home", SETTINGS[victim]) as (programs, database):
        deploy(programs, document)
        total = EVENTS + EVENTS // 25 + EVENTS
        thresholds = sorted(moments.sample(range(5, int(total * 0.7)), KILLS))
        targets = moments.sample(CONSUMERS * KILLS, KILLS)
        wrapper_started = datetime.min.replace(tzinfo=UTC)
        for threshold, target in zip(thresholds, targets, strict=True):
            wait_for_events(programs, database, threshold)
            consumer, leased = stop_at_work(programs, database, target, wrapper_started, moments)
            unacknowledged = events(database, UNACKNOWLEDGED, consumer=consumer)
            assert leased
            assert unacknowledged
            assert leased <= unacknowledged
            programs.kill(victim)
            programs.resume(*PROGRAMS - {victim})
            if victim == "wrapper":
                wrapper_started = one(database, NOW)
            programs.start(victim)
        wait_until(programs, lambda: one(database, FINISHED, tasks=TASKS), "everything has succeeded")
        assert one(database, UNDELIVERED) == 0
        assert (
            one(database, "select count(*) from any_attempt where outcome = 'lease_lost'") > 0 or victim == "dispatcher"
        )
        assert outcome(programs, database) == undisturbed


def wait_for_events(programs: Programs, database: psycopg.Connection, threshold: int) -> None:
    wait_until(programs, lambda: one(database, PROGRESS) >= threshold, f"{threshold} events")


def with_work(database: psycopg.Connection, consumer: str) -> str:
    """That consumer, or where it has done all of its tasks, as a slow machine may have it, one that has not."""
    done: dict[str, int] = dict(database.execute(DONE).fetchall())
    return next(name for name in (consumer, *CONSUMERS) if done.get(name, 0) < TASKS_OF[name])


def stop_at_work(
    programs: Programs, database: psycopg.Connection, target: str, since: datetime, moments: random.Random
) -> tuple[str, set[UUID]]:
    """Returns with both programs stopped and tasks of a consumer leased, claimed since then: whose, for what events."""
    consumer, leased = target, set[UUID]()

    def hit() -> bool:
        nonlocal consumer, leased
        programs.stop(*PROGRAMS)
        consumer = with_work(database, target)
        if one(database, AT_REST) and one(database, NONE_IS_NEAR_ITS_END):
            leased = events(database, LEASED, consumer=consumer, since=since)
        if not leased:
            programs.resume(*PROGRAMS)
        return bool(leased)

    try:
        wait_until(programs, hit, f"a task of {target} is leased", pause=moments.uniform(0.001, 0.02))
    except AssertionError as error:
        error.add_note(f"tasks by job and state, with the most leases lost: {database.execute(STATES).fetchall()}")
        raise
    return consumer, leased


def deploy(programs: Programs, document: Path) -> None:
    with programs.connected() as connection:
        deploy_document(connection, Document.read(document))


def outcome(programs: Programs, database: psycopg.Connection) -> dict[str, Any]:
    """All that is left of a run but its ids and times."""
    accepted = database.execute(
        """
        select v.dataset_id, e.scope_kind, e.scope_first, e.scope_last, e.revision, e.manifest
        from event e join dataset_version v using (dataset_version_id) order by 1, 3, 4
        """
    ).fetchall()
    tasks = database.execute(
        """
        select j.job, t.scope_first, t.scope_last, t.state::text, t.accepted_events
        from any_task t join job_version j using (job_version_id) order by 1, 2, 3
        """
    ).fetchall()
    files = database.execute(
        """
        select v.dataset_id, a.scope_first, a.scope_last, a.row_count, a.sha256, a.object_key
        from artifact a join dataset_version v using (dataset_version_id)
        where a.removed_publication_id is null order by 1, 2
        """
    ).fetchall()
    sums: dict[str, int] = {}
    for dataset, *_, key in files:
        column = {"k.numbers": "value", "k.sums": "total"}[dataset]
        values: list[Any] = pq.read_table(programs.home.artifacts / key, partitioning=None)[column].to_pylist()
        sums[dataset] = sums.get(dataset, 0) + sum(int(value) for value in values)
    return {"events": accepted, "tasks": tasks, "files": [row[:-1] for row in files], "sums": sums}


def events(database: psycopg.Connection, statement: str, **parameters: object) -> set[UUID]:
    return {event_id for (event_id,) in database.execute(statement, parameters)}


def one(database: psycopg.Connection, statement: str, **parameters: object) -> Any:
    row = database.execute(statement, parameters or None).fetchone()
    assert row is not None
    return row[0]


def wait_until(programs: Programs, condition: Callable[[], bool], what: str, *, pause: float = 0.02) -> None:
    """Asks again and again, with a deadline: the database has no signal for "some work is under way"."""
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline, f"not in {DEADLINE} s: {what}"
        programs.signals.wait([], pause)
