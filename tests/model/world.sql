-- What the machine asks of the database, and what time does there. Everything but the source is of one DAG's two jobs.

-- name: time_passes
-- Whatever has a moment to come comes so much nearer to it.
update task
set lease_until = lease_until - make_interval(secs => %(seconds)s), released_at = released_at - make_interval(secs => %(seconds)s),
    retry_at = retry_at - make_interval(secs => %(seconds)s)
where state in ('running', 'released', 'backoff')
    and job_version_id in (select job_version_id from job_version where dag = %(dag)s and job <> 'numbers');

-- name: time_passes_for_streams
update ordered_stream
set lease_until = lease_until - make_interval(secs => %(seconds)s)
where lease_until is not null and job_version_id in (select job_version_id from job_version where dag = %(dag)s);

-- name: time_passes_for_jobs
-- What came before stays before.
update job_version_run
set changed_at = changed_at - make_interval(secs => %(seconds)s)
where job_version_id in (select job_version_id from job_version where dag = %(dag)s);

-- name: tasks
select j.job, t.scope_first, t.task_id::text, t.state::text, t.attempt, t.failed_attempts, t.lost_leases,
    t.cancel_reason is not null and t.state = 'running', t.accepted_events
from any_task t
join job_version j using (job_version_id)
where j.dag = %(dag)s and j.job <> 'numbers';

-- name: stream
select o.epoch, o.lease_until > clock_timestamp()
from ordered_stream o
join job_version j using (job_version_id)
where j.dag = %(dag)s;

-- name: watermarks
select j.job, w.cursor_key
from watermark w
join job_output o using (dataset_version_id)
join job_version j using (job_version_id)
where j.dag = %(dag)s;
