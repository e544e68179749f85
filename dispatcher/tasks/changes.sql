-- What people do to tasks: cancel, retry, skip.

-- name: cancel
-- CANCEL: queued, released or backoff to canceled. The caller holds the locks.
update task
set state = 'canceled', reason = %(reason)s, released_at = null, retry_at = null, finished_at = clock_timestamp()
where task_id = any(%(task_ids)s::uuid[]) and state in ('queued', 'released', 'backoff');

-- name: request_cancel
-- REQUEST_CANCEL: a running task may only stop from now on. The caller holds the locks.
update task
set cancel_reason = %(reason)s
where task_id = any(%(task_ids)s::uuid[]) and state = 'running' and cancel_reason is null;

-- name: stop_streams
-- The runs of cancelled tasks stop as a whole; what was not cancelled goes back in line.
update ordered_stream o
set cancel_reason = %(reason)s
from unnest(%(job_version_ids)s::uuid[], %(stream_keys)s::text[]) as s (job_version_id, stream_key)
where o.job_version_id = s.job_version_id and o.stream_key = s.stream_key and o.lease_until is not null;

-- name: count_matching
-- How many tasks a filter finds in some states; for a look before a change, which reads the table once. As for a cancel, runs of sources
-- only where asked for by id.
select count(*)
from task t
join job_version j using (job_version_id)
where t.state = any(%(states)s::task_state[]) and t.cancel_reason is null
    and (t.origin <> 'source_run' or t.state = 'dead' or %(task_ids)s::uuid[] is not null)
    and (%(task_ids)s::uuid[] is null or t.task_id = any(%(task_ids)s::uuid[]))
    and (%(dag)s::text is null or j.dag = %(dag)s)
    and (%(job)s::text is null or j.job = %(job)s)
    and (%(first)s::bytea is null or (t.scope_first <= %(last)s and t.scope_last >= %(first)s));

-- name: cancelable_tasks
-- Candidates of CANCEL and REQUEST_CANCEL, in the order of their ids. A filter does not find the run of a source: it cannot be started
-- again, so it is cancelled by its id only. Nothing is locked. Primary key, from the last page on: all pages together read the table once.
select t.task_id::text
from task t
join job_version j using (job_version_id)
where t.state in ('queued', 'released', 'running', 'backoff') and t.cancel_reason is null
    and (t.origin <> 'source_run' or %(task_ids)s::uuid[] is not null)
    and (%(states)s::task_state[] is null or t.state = any(%(states)s::task_state[]))
    and (%(task_ids)s::uuid[] is null or t.task_id = any(%(task_ids)s::uuid[]))
    and (%(after)s::uuid is null or t.task_id > %(after)s)
    and (%(dag)s::text is null or j.dag = %(dag)s)
    and (%(job)s::text is null or j.job = %(job)s)
    and (%(first)s::bytea is null or (t.scope_first <= %(last)s and t.scope_last >= %(first)s))
order by t.task_id
limit %(limit)s;

-- name: dead_tasks
-- Candidates of RETRY and SKIP. Index task_open.
select t.task_id::text
from task t
join job_version j using (job_version_id)
where t.state = 'dead'
    and (%(task_ids)s::uuid[] is null or t.task_id = any(%(task_ids)s::uuid[]))
    and (%(after)s::uuid is null or t.task_id > %(after)s)
    and (%(dag)s::text is null or j.dag = %(dag)s)
    and (%(job)s::text is null or j.job = %(job)s)
    and (%(first)s::bytea is null or (t.scope_first <= %(last)s and t.scope_last >= %(first)s))
order by t.task_id
limit %(limit)s
for no key update of t;

-- name: retry
-- RETRY: dead to queued, with another round of attempts.
update task
set state = 'queued', finished_at = null, reason = '', failed_attempts = 0, lost_leases = 0
where task_id = any(%(task_ids)s::uuid[]) and state = 'dead'
returning task_id::text;

-- name: skip
-- SKIP: dead to skipped, on record. Its end is now: what it died of may be long ago.
update task
set state = 'skipped', reason = %(reason)s, finished_at = clock_timestamp()
where task_id = any(%(task_ids)s::uuid[]) and state = 'dead'
returning task_id::text;

-- name: dags_of
-- Whose tasks these are. Primary key.
select distinct j.dag
from task t
join job_version j using (job_version_id)
where t.task_id = any(%(task_ids)s::uuid[])
order by j.dag;
