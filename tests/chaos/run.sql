-- What the driver of a run asks the database.

-- name: in_flight
-- Tasks that an event caused, under a lease that lives, its own or its stream's; of one worker where it is named.
select count(*)
from task t
left join ordered_stream o on (o.job_version_id, o.stream_key, o.epoch) = (t.job_version_id, t.stream_key, t.stream_epoch)
where t.state = 'running' and t.event_id is not null and coalesce(t.lease_until, o.lease_until) > clock_timestamp()
    and (%(worker_id)s::text is null or t.worker_id = %(worker_id)s);

-- name: ended
-- Tasks of the chain that are at their end, of each job those of the version that is the furthest.
select coalesce(sum(most), 0)
from (
    select job, max(ended) as most
    from (
        select j.job, t.job_version_id, count(*) as ended
        from any_task t
        join job_version j using (job_version_id)
        where t.state in ('succeeded', 'dead', 'canceled', 'skipped') and j.dag = 'chaos' and j.job <> 'tagged'
        group by j.job, t.job_version_id
    ) v
    group by job
) j;

-- name: settled
-- Nothing is left to do that may be done: the sources' runs and everything that they caused have ended, and what was missed is made up for.
select exists (select 1 from any_task where origin = 'source_run')
    and not exists (
        select 1 from task t
        where t.state not in ('succeeded', 'dead', 'canceled', 'skipped')
            and (t.state = 'running' or t.job_version_id in (select job_version_id from scheduled_job))
    )
    and not exists (
        select 1 from subscription u where not u.replayed and u.job_version_id in (select job_version_id from scheduled_job)
    );

-- name: standing
-- The latest switch.
select deploy_number from deploy_counter;

-- name: active
select active_version_id::text from dag where dag = 'chaos';

-- name: state
-- Of a deployment.
select state::text from dag_version where dag_version_id = %(dag_version_id)s;

-- name: some_served
-- A dataset version that is served.
select dataset_version_id::text from pointer order by random() limit 1;

-- name: died_of_lost_leases
-- Tasks that may run, and whose workers were killed, stopped or cut off once too often.
select array_agg(task_id::text)
from task
where state = 'dead' and reason like '%% leases were lost%%' and job_version_id in (select job_version_id from scheduled_job);

-- name: named
-- Files that are part of a dataset version.
select coalesce(array_agg(object_key), '{}') from artifact;

-- name: left
-- What the collector has still to do, and pins that have expired.
select (select count(*) from dataset_version where condemned_at is not null)
    + (select count(*) from pin where expires_at < clock_timestamp() - interval '1 s');

-- name: to_cancel
-- A task that a person might cancel: of the middle job, running where there is one.
select t.task_id::text
from task t
join job_version j using (job_version_id)
where j.job = 'skip' and t.state in ('queued', 'released', 'running') and t.cancel_reason is null
    and t.job_version_id in (select job_version_id from scheduled_job)
order by t.state = 'running' desc, random()
limit 1;

-- name: end_sessions
-- Every session of the dispatchers, whatever it is doing.
select count(pg_terminate_backend(pid)) from pg_stat_activity where application_name like 'trace-dispatcher%';
