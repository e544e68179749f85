-- A removed DAG that is deployed again, changed: what it served is still read while the new version is built, and the jobs that both have go on.

create or replace view scheduled_job as
select d.dag, s.dag_version_id, s.job_version_id, s.details, s.max_attempts, s.max_lost_leases, s.timeout, s.max_concurrency, s.queue,
    s.retry_backoff, s.max_retry_backoff, s.max_run_tasks, false as staged,
    d.staged_version_id is not null and not exists (
        select 1 from dag_version_job n where n.dag_version_id = d.staged_version_id and n.job_version_id = s.job_version_id
    ) as leaving, d.releases_held_until
from dag d
join dag_version_job s on s.dag_version_id = d.active_version_id
where d.removed_at is null
union all
select d.dag, s.dag_version_id, s.job_version_id, s.details, s.max_attempts, s.max_lost_leases, s.timeout, s.max_concurrency, s.queue,
    s.retry_backoff, s.max_retry_backoff, s.max_run_tasks, true, false, null
from dag d
join dag_version_job s on s.dag_version_id = d.staged_version_id
where d.removed_at is not null or not exists (
    select 1 from dag_version_job a where a.dag_version_id = d.active_version_id and a.job_version_id = s.job_version_id
);
