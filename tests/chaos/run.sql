-- What the driver of a run asks the database.

-- name: in_flight
-- Tasks that an event caused, under a lease that lives, its own or its stream's; of one worker where it is named.
select count(*)
from task t
left join ordered_stream o on (o.job_version_id, o.stream_key, o.epoch) = (t.job_version_id, t.stream_key, t.stream_epoch)
where t.state = 'running' and t.event_id is not null and coalesce(t.lease_until, o.lease_until) > clock_timestamp()
    and (%(worker_id)s::text is null or t.worker_id = %(worker_id)s);

-- name: ended
-- Tasks that are at their end.
select count(*) from any_task where state in ('succeeded', 'dead', 'canceled', 'skipped');

-- name: settled
-- Nothing is left to do: the sources' runs and everything that they caused have ended.
select not exists (select 1 from task where state not in ('succeeded', 'dead', 'canceled', 'skipped'))
    and exists (select 1 from any_task where origin = 'source_run');

-- name: died_of_lost_leases
-- Tasks whose workers were killed, stopped or cut off once too often.
select array_agg(task_id::text) from task where state = 'dead' and reason like '%% leases were lost%%';

-- name: to_cancel
-- A task that a person might cancel: of the middle job, running where there is one.
select t.task_id::text
from task t
join job_version j using (job_version_id)
where j.job = 'skip' and t.state in ('queued', 'released', 'running') and t.cancel_reason is null
order by t.state = 'running' desc, random()
limit 1;

-- name: end_sessions
-- Every session of the dispatchers, whatever it is doing.
select count(pg_terminate_backend(pid)) from pg_stat_activity where application_name like 'trace-dispatcher%';
