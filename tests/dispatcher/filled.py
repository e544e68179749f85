"""A dispatcher over tables of 10^5 rows with fresh statistics, and what statements are asked about there."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dispatcher.db.pool import Pool, transaction
from tests.dispatcher.builders import CHAIN, READER
from tests.dispatcher.in_process import InProcess, in_process_dispatcher
from tests.dispatcher.plans import plan_of

ROWS = 100_000
BIG = {"event", "task", "attempt", "artifact", "publication", "ordered_stream", "operator_state"}

# Most of what there is has ended, as on any day but the first; a hundred of each live state, and a backlog.
FILL = """
insert into publication (publication_id, dataset_version_id, number)
select gen_random_uuid(), v.dataset_version_id, n
from (select dataset_version_id from dataset_version where dataset_id = 'blocks') v, generate_series(1, 100000) n;

insert into event (event_id, dataset_version_id, producer_task_id, producer_attempt, scope_kind, scope_first,
    scope_last, revision, payload_digest, publication_id, origin)
select uuidv7(), p.dataset_version_id, gen_random_uuid(), 1, 1, int8send(p.number # (-9223372036854775808)),
    int8send(p.number # (-9223372036854775808)), 0, 'x', p.publication_id, 'live'
from publication p order by p.number;

insert into artifact (artifact_id, dataset_version_id, object_key, producer_task_id, producer_attempt, scope_kind,
    scope_first, scope_last, revision, row_count, size_bytes, sha256, schema_digest, publication_id)
select uuidv7(), e.dataset_version_id, 'data/' || e.event_id, e.producer_task_id, 1, 1, e.scope_first, e.scope_last, 0,
    1, 1, sha256('x'), sha256('x'), e.publication_id
from event e;

insert into task (task_id, job_version_id, event_id, origin, stream_key, scope_kind, scope_first, scope_last, state,
    attempt, run_epoch, lease_token_digest, lease_until, worker_id, started_at, released_at, retry_at, finished_at,
    reason)
select uuidv7(), j.job_version_id, e.event_id, 'live', case when j.ordered then '' end, 1, e.scope_first, e.scope_last,
    s.state::task_state, 1, 1, case when s.state = 'running' then 'x'::bytea end,
    case when s.state = 'running' then clock_timestamp() + interval '1 h' end,
    case when s.state = 'running' then 'w' end, case when s.state = 'running' then clock_timestamp() end,
    case when s.state = 'released' then clock_timestamp() end, case when s.state = 'backoff' then clock_timestamp() end,
    case when s.state in ('succeeded', 'dead') then clock_timestamp() end, 'why'
from (select e.*, row_number() over (order by e.scope_first) as n from event e) e
cross join lateral (
    select case when n <= 90000 then 'succeeded' when n <= 90100 then 'running' when n <= 90200 then 'released'
        when n <= 90300 then 'backoff' when n <= 90400 then 'dead' else 'queued' end as state
) s
cross join job_version j
where (j.job = 'copies') or (j.job = 'ranges' and s.state in ('succeeded', 'queued'));

insert into watermark (dataset_version_id, cursor_key)
select dataset_version_id, int8send(100000 # (-9223372036854775808)) from dataset_version where dataset_id = 'blocks';

insert into attempt (task_id, attempt, worker_id, claim_request_id, lease_token_digest, started_at, outcome, task_state,
    error_class)
select task_id, 1, 'w', gen_random_uuid(), 'x', clock_timestamp(),
    case when state = 'succeeded' then 'succeeded' else 'failed' end::attempt_outcome, state,
    case when state <> 'succeeded' then 'user'::error_class end
from task
where state in ('succeeded', 'backoff', 'dead');

insert into ordered_stream (job_version_id, stream_key, lease_token_digest, lease_until)
select j.job_version_id, 'key ' || n, case when n <= 100 then 'x'::bytea end,
    case when n <= 100 then clock_timestamp() + interval '1 h' end
from job_version j, generate_series(1, 100000) n
where j.job = 'ranges';

insert into operator_state (job_version_id, stream_key, data, version)
select job_version_id, stream_key, 'x', 1 from ordered_stream where stream_key <> '';

update subscription set from_number = 100000, replayed = false where job_version_id in
    (select job_version_id from job_version where job = 'echo');

analyze;
"""


@asynccontextmanager
async def filled_dispatcher(pool: Pool, artifacts: Path) -> AsyncIterator[InProcess]:
    async with in_process_dispatcher(pool, artifacts) as dispatcher:
        await dispatcher.deploy(CHAIN)
        await dispatcher.deploy(READER)
        async with transaction(pool) as connection:
            await connection.execute("set local statement_timeout = '120s'")
            for statement in FILL.split(";\n"):
                await connection.execute(statement)
        yield dispatcher


@dataclass(frozen=True, slots=True)
class Given:
    """What statements are asked about: a dataset version, a job, an ordered one, running tasks, and scopes of events
    with the tasks that produced them."""

    version: str
    job: str
    stream: str
    some: list[str]
    keys: list[tuple[Any, ...]]


async def given(filled: InProcess) -> Given:
    return Given(
        await filled.value("select dataset_version_id::text from dataset_version where dataset_id = 'blocks'"),
        await filled.value("select job_version_id::text from job_version where job = 'copies'"),
        await filled.value("select job_version_id::text from job_version where job = 'ranges'"),
        [str(row[0]) for row in await filled.rows("select task_id from task where state = 'running' limit 50")],
        await filled.rows("select producer_task_id, scope_first from event limit 50"),
    )


async def check(dispatcher: InProcess, indexes: set[str], statement: str, **parameters: Any) -> None:
    """No large table is read as a whole, and each of the indexes is used; `a|b` stands for one of the two."""
    nodes = await plan_of(dispatcher, statement, **parameters)
    scanned = {node["Relation Name"] for node in nodes if node["Node Type"] == "Seq Scan"}
    used = {node["Index Name"] for node in nodes if "Index Name" in node}
    assert not scanned & BIG, (scanned, [n["Node Type"] for n in nodes])
    assert all(used & set(index.split("|")) for index in indexes), (indexes, used)
