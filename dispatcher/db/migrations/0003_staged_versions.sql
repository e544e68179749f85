-- A DAG version is built beside the active one: staged, it runs on settings of its own, and nobody reads it.

alter table dag
    add column staged_version_id uuid references dag_version,
    -- While a cutover waits for the last scopes, no task is released of jobs that the staged version lacks.
    add column releases_held_until timestamptz,
    -- Nothing of it runs any more; what it served last can be read until it is collected.
    add column removed_at timestamptz;

alter table dag_version
    add column base_version_id uuid references dag_version,
    add column staged_at timestamptz,
    -- Cuts over only when told.
    add column hold boolean not null default false;

-- Who called for a rollback, and what it was answered with.
alter table deploy_request add column rolled_back_version_id uuid references dag_version;

-- The job versions that may run, with the settings by which they do: those of the active DAG version, and those of the staged one that the
-- active one lacks. `leaving`: the staged version lacks it.
create view scheduled_job as
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
where not exists (
    select 1 from dag_version_job a where a.dag_version_id = d.active_version_id and a.job_version_id = s.job_version_id
);

-- What a reader of another DAG's dataset was built on; the version that it is bound to now follows the owner's pointer.
alter table input_binding add column built_version_id uuid references dataset_version (dataset_version_id);
update input_binding set built_version_id = dataset_version_id;

-- A reader that follows a pointer is not owed again the scopes that it had of the version before.
alter table subscription add column instead_of_version_id uuid references dataset_version (dataset_version_id);

-- Which DAG versions a job version was part of.
create index dag_version_job_of on dag_version_job (job_version_id);
