-- What a DAG that has run for a while leaves in the database, as far as a plan looks at it.

-- name: publish_much
-- A thousand publications of a hundred events each of every dataset that is not virtual, over the last hour and longer.
with published as (
    insert into publication (publication_id, dataset_version_id, number, published_at, event_count)
    select uuidv7(), h.dataset_version_id, h.number + n, clock_timestamp() - (1000 - n) * interval '5 s', 100
    from dataset_head h
    join dataset_version v using (dataset_version_id)
    join job_output o using (dataset_version_id)
    join job_version j using (job_version_id)
    cross join generate_series(1, 1000) as n
    where j.dag = %(dag)s and v.virtual_sql is null
    returning dataset_version_id, event_count
)
update dataset_head h
set number = h.number + p.publications, event_count = h.event_count + p.events
from (
    select dataset_version_id, count(*) as publications, sum(event_count) as events from published group by dataset_version_id
) p
where h.dataset_version_id = p.dataset_version_id;

-- name: run_much
-- For every operator so many tasks that have succeeded, with their attempts, and have been moved.
with made as (
    insert into finished_task (
        task_id, job_version_id, event_id, origin, state, scope_kind, scope_first, scope_last, revision, attempt, failed_attempts,
        lost_leases, run_epoch, accepted_events, run_emitted, nondeterministic, reason, created_at, finished_at
    )
    select uuidv7(), j.job_version_id, uuidv7(), 'live', 'succeeded', 1, '', '', 0, 1, 0, 0, 1, 1, false, false, '', clock_timestamp(),
        clock_timestamp() - (n %% 2) * interval '1 day'
    from job_version j
    cross join generate_series(1, %(tasks)s) as n
    where j.dag = %(dag)s and j.kind = 'operator'
    returning task_id, finished_at
)
insert into finished_attempt (
    task_id, attempt, worker_id, claim_request_id, lease_token_digest, started_at, ended_at, outcome, task_state, message, traceback,
    finished_at
)
select task_id, 1, 'worker', uuidv7(), '', finished_at - (0.5 + random()) * interval '1 s', finished_at, 'succeeded', 'succeeded', '', '',
    finished_at
from made;
