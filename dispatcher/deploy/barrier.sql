-- The barrier of a build: everything that was accepted before it is done before the version may take over (MECHANICS 19).

-- name: get_barrier
-- Of what is being built; before the first look of this release there is none but the staging. Primary keys.
select coalesce(v.barrier_at, v.staged_at) as barrier_at, v.barrier_passed_at as passed_at, v.barrier_retaken as retaken,
    v.hold as waits_for_person, v.barriers_by_itself as by_itself, d.releases_held_since as halted_since,
    d.releases_held_until as halted_until, clock_timestamp() as now
from dag_version v
join dag d on d.dag = v.dag and d.staged_version_id = v.dag_version_id
where v.dag_version_id = %(dag_version_id)s;

-- name: before_barrier
-- Whether anything is left to do of what was caused before the barrier. What comes of it is replayed, all the way down. All that the jobs have
-- to do is read where none of it is: once for each barrier, and under no lock. Indexes subscription_replaying, task_queued, task_open.
select exists (
    select 1
    from dag_version v
    join dag d using (dag)
    join dag_version_job s using (dag_version_id)
    join job_version j using (job_version_id)
    where v.dag_version_id = %(dag_version_id)s
        and not exists (
            select 1 from dag_version_job a where a.dag_version_id = d.active_version_id and a.job_version_id = j.job_version_id
        )
        and (
            exists (select 1 from replaying u where u.job_version_id = j.job_version_id)
            or exists (
                select 1 from task t where t.job_version_id = j.job_version_id and t.origin = 'replay' and t.state = 'queued'
            )
            or exists (
                select 1 from task t
                where t.job_version_id = j.job_version_id and t.state in ('released', 'running', 'backoff', 'dead')
                    and (t.origin = 'replay' or (t.origin <> 'source_run' and t.created_at < coalesce(v.barrier_at, v.staged_at)))
            )
            or exists (
                select 1 from task t
                where t.job_version_id = j.job_version_id and t.origin in ('live', 'backfill') and t.state = 'queued'
                    and t.created_at < coalesce(v.barrier_at, v.staged_at)
            )
        )
);

-- name: note_passed
-- Only of the barrier that was looked at. Primary key.
update dag_version
set barrier_at = %(barrier_at)s, barrier_passed_at = clock_timestamp()
where dag_version_id = %(dag_version_id)s and coalesce(barrier_at, staged_at) = %(barrier_at)s and barrier_passed_at is null;

-- name: retake_barrier
-- The caller owns the DAG. Primary key.
update dag_version
set barrier_at = clock_timestamp(), barrier_passed_at = null, barrier_retaken = true,
    barriers_by_itself = barriers_by_itself + case when %(asked)s then 0 else 1 end
where dag_version_id = %(dag_version_id)s;

-- name: bar_jobs
-- What the staged jobs emit by tasks from before counts as replayed (`before_change`), so that it is waited for too. As when they were staged.
update job_version_run
set changed_at = clock_timestamp()
where run_state = 'staged' and job_version_id in (
    select job_version_id from dag_version_job where dag_version_id = %(dag_version_id)s
);
