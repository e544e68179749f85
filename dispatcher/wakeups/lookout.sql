-- What background duties wait for.

-- name: due
-- In how many seconds the next lease runs out, the next backoff ends, and the next wake-up counts as unanswered, below zero for what has
-- passed already; and whether anything is replayed, queued of a job that may run, or being built or removed. Indexes task_leased,
-- ordered_stream_leased, task_backoff, task_released, subscription_replaying, task_queued: the first entry of each.
select extract(epoch from least(
        (select min(lease_until) from task where state = 'running'),
        (select min(lease_until) from ordered_stream where lease_until is not null)
    ) - clock_timestamp())::float as leases,
    extract(epoch from (select min(retry_at) from task where state = 'backoff') - clock_timestamp())::float as backoffs,
    extract(epoch from (select min(released_at) from task where state = 'released') + %(unanswered)s::interval - clock_timestamp())::float
        as wakeups,
    (select true from replaying limit 1) is true as replay,
    (select true from task where state = 'queued' order by job_version_id, origin, scope_first, task_id limit 1) is true and exists (
        select 1
        from scheduled_job s
        join job_version_run r using (job_version_id)
        cross join lateral (
            select 1 from task t
            where t.job_version_id = s.job_version_id and t.state = 'queued'
            order by t.job_version_id, t.origin, t.scope_first, t.task_id
            limit 1
        ) q
        where r.run_state in ('running', 'staged')
    ) as queued,
    (select true from dag where staged_version_id is not null or ending limit 1) is true as staged;
