-- Queues, as people see and set them, and what dispatchers say of their workers.

-- name: queues
-- Those that a deployed job or a worker uses, or that were set. What is set is null where the defaults hold.
with report as (
    select queue, sum(credits)::bigint as credits
    from queue_report
    where reported_at > clock_timestamp() - %(fresh)s::interval
    group by queue
), named as (
    select s.queue
    from scheduled_job s
    join job_version j using (job_version_id)
    where j.kind <> 'virtual'
    union
    select queue from queue_settings
    union
    select queue from report
)
select n.queue, q.window_size, q.live_share, q.rematerialization_share, q.backfill_share, q.live_reserve,
    coalesce(q.actor, '') as actor, q.changed_at, coalesce(r.credits, 0) as credits, r.queue is not null as served
from named n
left join queue_settings q using (queue)
left join report r using (queue)
where %(queue)s::text is null or n.queue = %(queue)s
order by n.queue;

-- name: class_uses
-- What each class has in a queue: tasks that wait, counted up to `most`, tasks that are out, and their places: what is released of a paused
-- job has none. For people. Indexes task_queued and task_open.
select s.queue, case when s.staged then 'replay' else k.origin end::text as origin, sum(w.tasks)::bigint as waiting, sum(o.released)::bigint as released,
    sum(o.running)::bigint as running,
    sum(case when j.ordered then least(o.placed, 1) else o.placed end)::bigint as places
from scheduled_job s
join job_version j using (job_version_id)
cross join unnest(%(origins)s::task_origin[]) as k (origin)
cross join lateral (
    select count(*) as tasks
    from (
        select from task t
        where t.job_version_id = j.job_version_id and t.origin = k.origin and t.state = 'queued'
        limit %(most)s
    ) c
) w
cross join lateral (
    select count(*) filter (where t.state = 'released') as released, count(*) filter (where t.state = 'running') as running,
        count(*) filter (
            where t.state = 'running' or not exists (select 1 from pause p where p.dag = j.dag and p.job in ('', j.job))
        ) as placed
    from task t
    where t.job_version_id = j.job_version_id and t.origin = k.origin and t.state in ('released', 'running')
) o
where %(queue)s::text is null or s.queue = %(queue)s
group by s.queue, case when s.staged then 'replay' else k.origin end;

-- name: own_queue
-- What people set of a queue, for a round of releases. Of two replicas one counts what is out after the other has committed, so that no
-- window is filled twice; a queue without settings has no row, and nobody waits. Primary key.
select window_size, live_share, rematerialization_share, backfill_share, live_reserve
from queue_settings
where queue = %(queue)s
for no key update;

-- name: set_queue
-- What is null stays as it is, by default as nobody has set it; a window of 0 is none. A round that counts at the moment is waited for.
insert into queue_settings (
    queue, window_size, live_share, rematerialization_share, backfill_share, live_reserve, actor
)
values (
    %(queue)s, nullif(%(window_size)s, 0), coalesce(%(live_share)s, %(default_live_share)s),
    coalesce(%(rematerialization_share)s, %(default_rematerialization_share)s),
    coalesce(%(backfill_share)s, %(default_backfill_share)s), coalesce(%(live_reserve)s, %(default_live_reserve)s), %(actor)s
)
on conflict (queue)
do update set window_size = case when %(window_size)s is null then queue_settings.window_size else nullif(%(window_size)s, 0) end,
    live_share = coalesce(%(live_share)s, queue_settings.live_share),
    rematerialization_share = coalesce(%(rematerialization_share)s, queue_settings.rematerialization_share),
    backfill_share = coalesce(%(backfill_share)s, queue_settings.backfill_share),
    live_reserve = coalesce(%(live_reserve)s, queue_settings.live_reserve), actor = excluded.actor,
    changed_at = clock_timestamp();

-- name: report_queues
-- What one dispatcher says now takes the place of what it said before; what nobody has repeated for long goes too. A handful of rows.
with gone as (
    delete from queue_report
    where (dispatcher_id, queue) in (
        select dispatcher_id, queue
        from queue_report
        where (dispatcher_id = %(dispatcher_id)s and queue <> all(%(queues)s::text[]))
            or reported_at < clock_timestamp() - %(forgotten)s::interval
        for update skip locked
    )
)
insert into queue_report (dispatcher_id, queue, credits)
select %(dispatcher_id)s, queue, credits
from unnest(%(queues)s::text[], %(credits)s::int[]) as r (queue, credits)
on conflict (dispatcher_id, queue)
do update set credits = excluded.credits, reported_at = clock_timestamp();
