-- Who may go next.

-- name: own_limits
-- Jobs with a max_concurrency whose room this round counts. A replica that counts at the same time skips them: both would find the same
-- room. The count comes in a later statement, which sees what the former holder of the lock committed.
select s.job_version_id::text
from dag_version_job s
join dag d on s.dag_version_id in (d.active_version_id, d.staged_version_id)
where s.queue = %(queue)s and s.max_concurrency is not null
order by s.job_version_id
for no key update of s skip locked;

-- name: job_lines
-- For each job of a queue and each class, what is out, and how many of its tasks may go, no more than the room. A task may go when its
-- job runs and the watermarks that it waits for cover its scope; of an ordered stream only the head, only while nothing of it is open, and
-- only where a replay cannot make an earlier one any more. `covered` and `before` keep a backlog beyond them out of the scan; no key begins
-- with 0xff. `stranded`: something of it is released that stands for nothing any more, as in withdraw. Indexes task_queued, task_open,
-- task_released, task_leased.
with busy as (
    select job_version_id, origin, count(*) as tasks, min(released_at) as first_released_at
    from (
        select job_version_id, origin, released_at from task where state = 'released'
        union all
        select job_version_id, origin, null from task where state = 'running'
    ) u
    where origin <> 'source_run'
    group by job_version_id, origin
), job as (
    select j.job_version_id, j.dag, j.kind, j.ordered, s.staged, s.max_concurrency, g.covered, f.before, r.run_state, r.changed_at, o.paused,
        r.run_state in ('running', 'staged') and g.moved and not o.paused
            and (s.max_concurrency is null or s.job_version_id = any(%(limited)s::uuid[]))
            and not (s.leaving and j.kind <> 'source' and s.releases_held_until > clock_timestamp()) is true
            and not (j.ordered and exists (
                select 1 from task u
                where u.job_version_id = j.job_version_id and u.state in ('released', 'running', 'backoff', 'dead')
            )) as goes
    from scheduled_job s
    join job_version j using (job_version_id)
    join job_version_run r using (job_version_id)
    cross join lateral (
        select exists (select 1 from pause p where p.dag = j.dag and p.job in ('', j.job)) as paused
    ) o
    cross join lateral (
        select count(*) = count(w.cursor_key) as moved, coalesce(min(w.cursor_key), '\xffffffffffffffffff'::bytea) as covered
        from input_binding b
        join dataset_version v using (dataset_version_id)
        left join watermark w using (dataset_version_id)
        where b.dag_version_id = s.dag_version_id and b.job_version_id = j.job_version_id
            and (b.wait or (j.ordered and b.trigger)) and v.cursor_type <> 0
    ) g
    cross join lateral (
        select coalesce(min(coalesce(u.replay_key, ''::bytea)), '\xffffffffffffffffff'::bytea) as before
        from replaying u
        where j.ordered and u.job_version_id = j.job_version_id
    ) f
    where s.queue = %(queue)s
)
select job.job_version_id::text, job.dag, job.ordered, job.max_concurrency, k.origin::text, job.covered, job.before,
    coalesce(b.tasks, 0)::int as open, q.ready, q.first, job.staged,
    b.first_released_at is not null and (
        job.paused or job.run_state not in ('running', 'staged') or (job.run_state = 'running' and b.first_released_at < job.changed_at)
    ) as stranded
from job
join unnest(enum_range(null::task_origin)) as k (origin) on (k.origin = 'source_run') = (job.kind = 'source')
left join busy b on b.job_version_id = job.job_version_id and b.origin = k.origin
cross join lateral (
    select count(*)::int as ready, min(c.scope_first) as first
    from (
        select t.scope_first
        from task t
        where t.job_version_id = job.job_version_id and t.origin = k.origin and t.state = 'queued'
            and t.scope_first <= job.covered and t.scope_first < job.before and t.scope_last <= job.covered
        order by t.scope_first, t.task_id
        limit case when not job.goes then 0 when job.ordered then 1 else %(room)s end
    ) c
) q
where q.ready > 0 or b.tasks > 0
order by job.job_version_id, k.origin;

-- name: withdraw
-- WITHDRAW: released to queued, of job versions whose wake-ups stand for nothing any more: a person paused them, or they were taken back
-- since and are restored. Nobody may answer such a wake-up, or it is sent again at its own time; until then its place would be taken from
-- what may go. What is being claimed is left alone. Indexes task_open, task_released.
with stranded as (
    select t.task_id
    from task t
    where t.job_version_id = any(%(job_version_ids)s::uuid[]) and t.state = 'released'
    order by t.task_id
    limit %(limit)s
    for no key update of t skip locked
)
update task
set state = 'queued', released_at = null
where state = 'released' and task_id = any(array(select task_id from stranded))
returning task_id::text;

-- name: release
-- RELEASE: queued to released, so many of each job and class as were dealt out, in scope order. Other replicas' picks are skipped. The
-- conditions are those of job_lines. Whether releases are halted is asked again: who sees a task that was accepted after a barrier sees the
-- halt that came with it. Index task_queued, primary keys.
with picked as (
    select c.task_id
    from unnest(
        %(job_version_ids)s::uuid[], %(origins)s::task_origin[], %(counts)s::int[], %(covered)s::bytea[], %(before)s::bytea[]
    ) as p (job_version_id, origin, tasks, covered, before)
    cross join lateral (
        select t.task_id
        from task t
        where t.job_version_id = p.job_version_id and t.origin = p.origin and t.state = 'queued'
            and t.scope_first <= p.covered and t.scope_first < p.before and t.scope_last <= p.covered
        order by t.scope_first, t.task_id
        limit p.tasks
        for no key update of t skip locked
    ) c
    where not exists (
        select 1
        from job_version j
        join dag d using (dag)
        where j.job_version_id = p.job_version_id and j.kind <> 'source' and d.releases_held_until > clock_timestamp() and not exists (
            select 1 from dag_version_job n where n.dag_version_id = d.staged_version_id and n.job_version_id = j.job_version_id
        )
    )
)
update task
set state = 'released', released_at = clock_timestamp()
where state = 'queued' and task_id = any(array(select task_id from picked))
returning task_id::text, origin::text, job_version_id::text;

-- name: release_again
-- Wake-ups that nobody answered are sent again; losing all of them costs only time. Not those that `withdraw` takes: it takes none of
-- sources, which have no place. Index task_released.
with unanswered as (
    select t.task_id
    from task t
    join scheduled_job s using (job_version_id)
    join job_version_run r using (job_version_id)
    join job_version j using (job_version_id)
    where t.state = 'released' and t.released_at < clock_timestamp() - %(unanswered)s::interval and s.queue = %(queue)s
        and (r.run_state = 'staged' or (r.run_state = 'running' and (j.kind = 'source' or t.released_at >= r.changed_at)))
        and not exists (select 1 from pause p where p.dag = j.dag and p.job in ('', j.job))
    order by t.task_id
    limit %(room)s
    for no key update of t skip locked
)
update task
set released_at = clock_timestamp()
where state = 'released' and task_id = any(array(select task_id from unanswered))
returning task_id::text;

-- name: hold_facts
-- Everything that can hold one task, as it stands now, also one that was moved; for people, one task at a time. Indexes task_queued and
-- task_open.
select t.task_id::text, j.dag, j.job, j.ordered, t.origin::text, t.state::text, t.reason, t.cancel_reason, t.worker_id,
    t.retry_at, t.released_at, r.run_state::text, t.run_epoch, r.epoch as job_epoch, coalesce(s.queue, '') as queue,
    s.max_concurrency, s.dag_version_id is not null as active, coalesce(s.staged, false) as staged,
    case when s.leaving and j.kind <> 'source' and s.releases_held_until > clock_timestamp() then s.releases_held_until end as halted_until,
    exists (select 1 from pause p where p.dag = j.dag and p.job in ('', j.job)) as paused,
    a.dataset_id as awaited_dataset, a.dataset_version_id::text as awaited_version_id, a.cursor_type as awaited_cursor_type,
    a.cursor_key as awaited_key, a.moved_at as awaited_moved_at, h.task_id::text as ahead_id, h.state::text as ahead_state,
    coalesce(j.ordered and t.scope_first >= f.frontier, false) as behind_replay, o.open
from any_task t
join job_version j using (job_version_id)
join job_version_run r using (job_version_id)
left join scheduled_job s on s.job_version_id = t.job_version_id
left join lateral (
    -- The input whose watermark is furthest from covering the scope.
    select b.dataset_id, b.dataset_version_id, v.cursor_type, w.cursor_key, w.moved_at
    from input_binding b
    join dataset_version v using (dataset_version_id)
    left join watermark w using (dataset_version_id)
    where b.dag_version_id = s.dag_version_id and b.job_version_id = t.job_version_id
        and (b.wait or (j.ordered and b.trigger)) and v.cursor_type <> 0
        and (w.cursor_key is null or w.cursor_key < t.scope_last)
    order by w.cursor_key nulls first, b.dataset_id
    limit 1
) a on true
left join lateral (
    -- What stands before it in its stream: whatever is open there, else an earlier one that waits.
    select u.task_id, u.state
    from task u
    where j.ordered and u.job_version_id = t.job_version_id and u.stream_key = t.stream_key and u.task_id <> t.task_id
        and (
            u.state in ('released', 'running', 'backoff', 'dead')
            or (u.state = 'queued' and (u.scope_first, u.task_id) < (t.scope_first, t.task_id))
        )
    order by u.state <> 'queued' desc, u.scope_first, u.task_id
    limit 1
) h on true
cross join lateral (
    select min(coalesce(u.replay_key, ''::bytea)) as frontier
    from replaying u
    where u.job_version_id = t.job_version_id
) f
cross join lateral (
    select count(*)::int as open
    from task u
    where u.job_version_id = t.job_version_id and u.state in ('released', 'running')
) o
where t.task_id = %(task_id)s;

-- name: producing_task
-- The task that makes a dataset's served version at a scope: the first that is not done, else the one that made what is there. A source's
-- run has no scope and makes all of them. Indexes job_output_by_version, task_queued, task_open, event_scope, task_cause,
-- finished_task_cause.
with made_by as (
    select o.job_version_id, p.dataset_version_id
    from pointer p
    join job_output o using (dataset_version_id)
    where p.dataset_id = %(dataset_id)s
), unfinished as (
    select t.task_id
    from made_by m
    cross join lateral (
        (
            select task_id, scope_first
            from task
            where job_version_id = m.job_version_id and state = 'queued'
                and scope_first <= %(last)s and (scope_last >= %(first)s or origin = 'source_run')
            order by scope_first, task_id
            limit 1
        )
        union all
        (
            select task_id, scope_first
            from task
            where job_version_id = m.job_version_id and state in ('released', 'running', 'backoff', 'dead')
                and scope_first <= %(last)s and (scope_last >= %(first)s or origin = 'source_run')
            order by scope_first, task_id
            limit 1
        )
    ) t
    order by t.scope_first, t.task_id
    limit 1
), near as (
    -- Events that cause what is made there, or are it. Scopes of a version do not nest deep: what covers a place begins not far before
    -- its end.
    select m.job_version_id, c.causes, e.event_id, e.producer_task_id, e.scope_first, e.scope_last
    from made_by m
    cross join lateral (
        select u.input_version_id as dataset_version_id, true as causes
        from subscription u
        where u.job_version_id = m.job_version_id
        union
        select m.dataset_version_id, false
    ) c
    cross join lateral (
        select event_id, producer_task_id, scope_first, scope_last
        from event
        where dataset_version_id = c.dataset_version_id and scope_first <= %(last)s
        order by scope_first desc, event_id desc
        limit 1000
    ) e
), done as (
    select coalesce(t.task_id, n.producer_task_id) as task_id
    from near n
    left join any_task t on n.causes and t.job_version_id = n.job_version_id and t.event_id = n.event_id
    where n.scope_last >= %(first)s and (t.task_id is not null or not n.causes)
    order by n.scope_first desc, n.event_id desc, t.revision desc
    limit 1
)
select coalesce((select task_id from unfinished), (select task_id from done))::text;
