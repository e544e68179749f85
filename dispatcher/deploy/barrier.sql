-- The barrier of a build: everything that was accepted before it is done before the version may take over (MECHANICS 19).

-- name: get_barrier
-- Of a version that is staged; before the first look of this release there is none but the staging. `good` as in `may_retake`. Primary keys.
select coalesce(v.barrier_at, v.staged_at) as barrier_at, v.barrier_passed_at is not null as passed, v.barrier_retaken as retaken,
    v.barrier_retaken and (
        v.barrier_passed_at is null or (d.releases_held_since <= v.barrier_at and clock_timestamp() < d.releases_held_until) is true
        or (
            v.barrier_passed_at - v.barrier_at > %(least)s::interval
            and clock_timestamp() < v.barrier_passed_at + (v.barrier_passed_at - v.barrier_at)
        )
    ) as good
from dag_version v
join dag d using (dag)
where v.dag_version_id = %(dag_version_id)s and v.staged_at is not null;

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

-- name: held_for
-- How long releases are to be held: twice as long as the last barrier took to be passed, or has taken so far. The staging's took as long as the
-- build, which says nothing. Primary key.
select case when barrier_retaken
    then greatest(%(least)s::interval, least(%(most)s::interval, 2 * (coalesce(barrier_passed_at, clock_timestamp()) - barrier_at)))
    else %(least)s::interval
end
from dag_version
where dag_version_id = %(dag_version_id)s;

-- name: may_retake
-- Where the last one is passed. For a person only where it is good no more: of two that try at once the second finds the first one's. It is
-- good for as long as releases have been held since; one that took longer than a hold lasts, for as long as it took. Where nobody asked, when
-- releases may be held again, as long after the last hold as this one is to last, and only of what does not wait for a person. Decides only
-- under the DAG's locks. Primary keys.
select v.barrier_passed_at is not null and case when %(asked)s::boolean
    then not (
        v.barrier_retaken and (
            (d.releases_held_since <= v.barrier_at and clock_timestamp() < d.releases_held_until) is true
            or (
                v.barrier_passed_at - v.barrier_at > %(least)s::interval
                and clock_timestamp() < v.barrier_passed_at + (v.barrier_passed_at - v.barrier_at)
            )
        )
    )
    else not v.hold and (d.releases_held_until is null or d.releases_held_until < clock_timestamp() - %(held)s::interval)
end
from dag_version v
join dag d on d.dag = v.dag and d.staged_version_id = v.dag_version_id
where v.dag_version_id = %(dag_version_id)s;

-- name: retake_barrier
-- The caller owns the DAG. Primary key.
update dag_version
set barrier_at = clock_timestamp(), barrier_passed_at = null, barrier_retaken = true
where dag_version_id = %(dag_version_id)s;

-- name: bar_jobs
-- What the staged jobs emit by tasks from before counts as replayed (`before_change`), so that it is waited for too. As when they were staged.
update job_version_run
set changed_at = clock_timestamp()
where run_state = 'staged' and job_version_id in (
    select job_version_id from dag_version_job where dag_version_id = %(dag_version_id)s
);
