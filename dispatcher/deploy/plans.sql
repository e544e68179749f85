-- What a plan is made of, and plans as they were made.

-- name: planning_base
-- The active version and the moment; a removed DAG has none. Primary keys.
select v.dag_version_id::text, v.version, v.spec, clock_timestamp() as now
from (select 1) one
left join dag d on d.dag = %(dag)s and d.removed_at is null
left join dag_version v on v.dag_version_id = d.active_version_id;

-- name: base_jobs
-- Jobs of a DAG version, each with what triggers it. Primary keys, by their first columns.
select j.job, j.job_version_id::text, j.kind::text, j.fingerprint as key, s.queue, s.max_concurrency, s.details,
    coalesce(b.triggers, '{}') as triggers
from dag_version_job s
join job_version j using (job_version_id)
left join (
    select job_version_id, jsonb_object_agg(dataset_id, dataset_version_id) as triggers
    from input_binding
    where dag_version_id = %(dag_version_id)s and trigger
    group by job_version_id
) b using (job_version_id)
where s.dag_version_id = %(dag_version_id)s
order by j.job;

-- name: built_jobs
-- Job versions under these keys that were part of a version that ran and that nobody collects, with what they left undone. Unique index of
-- (dag, job, fingerprint), primary key of subscription, dag_version_job_of, task_queued, task_open.
select j.job, j.job_version_id::text,
    coalesce((
        select jsonb_object_agg(v.dataset_id, v.dataset_version_id)
        from job_output o join dataset_version v using (dataset_version_id)
        where o.job_version_id = j.job_version_id
    ), '{}') as outputs,
    (select count(*) from task t where t.job_version_id = j.job_version_id and t.state = 'queued') + (
        select count(*) from task t where t.job_version_id = j.job_version_id and t.state in ('released', 'running', 'backoff')
    ) as open_tasks
from unnest(%(jobs)s::text[], %(keys)s::bytea[]) as k (job, key)
join job_version j on j.dag = %(dag)s and j.job = k.job and j.fingerprint = k.key
where (
        exists (select 1 from subscription s where s.job_version_id = j.job_version_id)
        or exists (
            select 1
            from dag_version_job s
            join dag_version v using (dag_version_id)
            where s.job_version_id = j.job_version_id and (v.active_at is not null or v.staged_at is not null)
        )
    ) and not exists (
        select 1
        from job_output o
        join dataset_version v using (dataset_version_id)
        where o.job_version_id = j.job_version_id and v.condemned_at is not null
    );

-- name: event_counts
-- Primary key.
select dataset_version_id::text, event_count from dataset_head where dataset_version_id = any(%(version_ids)s::uuid[]);

-- name: missed_events
-- Events that a job version is owed of dataset versions: those above the last number that it was given, and those that the replay of an
-- interval has not come to the end of. As many publications are read as were missed. Primary key of subscription, unique index of
-- (dataset_version_id, number).
select k.job_version_id::text, k.input_version_id::text, sum(p.event_count)::bigint as events
from unnest(%(job_version_ids)s::uuid[], %(input_version_ids)s::uuid[]) as k (job_version_id, input_version_id)
cross join lateral (
    select coalesce(max(s.to_number), 0) as given, coalesce(bool_or(s.to_number is null), false) as open,
        coalesce(max(s.to_number) filter (where s.replayed), 0) as replayed,
        coalesce(max(s.from_number) filter (where not s.replayed), 0) as replaying
    from subscription s
    where s.job_version_id = k.job_version_id and s.input_version_id = k.input_version_id
) had
join publication p on p.dataset_version_id = k.input_version_id and p.number > had.replayed
    and (p.number <= had.replaying or (p.number > had.given and not had.open))
group by k.job_version_id, k.input_version_id;

-- name: event_rates
-- Events a second of the last hour; where many publications came, of the latest 500 alone. Unique index of (dataset_version_id, number),
-- backwards.
select k.version_id::text, r.events / r.seconds as events_per_second
from unnest(%(version_ids)s::uuid[]) as k (version_id)
cross join lateral (
    select sum(l.event_count)::float8 as events,
        case when count(*) < 500 then 3600.0
        else greatest(extract(epoch from clock_timestamp() - min(l.published_at))::float8, 1.0) end as seconds
    from (
        select p.event_count, p.published_at
        from publication p
        where p.dataset_version_id = k.version_id
        order by p.number desc
        limit 500
    ) l
    where l.published_at > clock_timestamp() - interval '1 hour'
) r
where r.events > 0;

-- name: histories
-- How long the latest succeeded attempts of jobs took, of their newest versions. A run of an ordered job is claimed and ended as a whole, so
-- its time is divided among its tasks. In the hot table both ends are looked at, for a backlog may stand at the newer one. Unique index
-- of (dag, job, fingerprint), task_cause, finished_task_cause, primary keys.
select k.job, count(*)::int as samples, avg(d.seconds)::float8 as mean, stddev_samp(d.seconds)::float8 as deviation
from unnest(%(jobs)s::text[]) as k (job)
cross join lateral (
    select l.seconds / case when l.ordered then count(*) over (partition by l.claim_request_id) else 1 end as seconds
    from (
        select a.claim_request_id, extract(epoch from a.ended_at - a.started_at)::float8 as seconds, a.ended_at, v.ordered
        from (
            select job_version_id, ordered
            from job_version
            where dag = %(dag)s and job = k.job
            order by created_at desc
            limit 3
        ) v
        cross join lateral (
            (
                select n.claim_request_id, n.started_at, n.ended_at
                from (
                    (
                        select task_id, attempt, state from task
                        where job_version_id = v.job_version_id and event_id is not null
                        order by event_id desc limit %(most)s
                    )
                    union
                    (
                        select task_id, attempt, state from task
                        where job_version_id = v.job_version_id and event_id is not null
                        order by event_id limit %(most)s
                    )
                ) t
                join attempt n using (task_id, attempt)
                where t.state = 'succeeded' and n.outcome = 'succeeded'
            )
            union all
            (
                select n.claim_request_id, n.started_at, n.ended_at
                from (
                    select task_id, attempt, finished_at, state from finished_task
                    where job_version_id = v.job_version_id and event_id is not null
                    order by event_id desc limit %(most)s
                ) t
                join finished_attempt n using (task_id, attempt, finished_at)
                where t.state = 'succeeded' and n.outcome = 'succeeded'
            )
        ) a
        order by a.ended_at desc
        limit %(most)s
    ) l
) d
group by k.job;

-- name: rooms
-- What is set of queues, and what dispatchers have said of their workers within the last seconds. Primary keys.
select k.queue, s.window_size, (
    select sum(r.credits)::int from queue_report r
    where r.queue = k.queue and r.reported_at > clock_timestamp() - %(fresh)s::interval
) as credits
from unnest(%(queues)s::text[]) as k (queue)
left join queue_settings s using (queue);

-- name: reader_dags
-- DAGs of others whose active versions read datasets. Index input_binding_readers.
select distinct d.dag
from input_binding b
join dag d on d.active_version_id = b.dag_version_id
where b.dataset_id = any(%(dataset_ids)s::text[]) and d.dag <> %(dag)s
order by d.dag;

-- name: insert_plan
insert into plan (
    plan_id, dag, base_version_id, spec, spec_digest, bundles, no_rematerialize, content, actor, created_at
)
values (
    %(plan_id)s, %(dag)s, %(base_version_id)s, %(spec)s, %(spec_digest)s, %(bundles)s, %(no_rematerialize)s, %(content)s,
    %(actor)s, %(created_at)s
);

-- name: get_plan
-- Primary key.
select plan_id::text, dag, base_version_id::text, spec, spec_digest, bundles, no_rematerialize, content, actor, created_at
from plan
where plan_id = %(plan_id)s;

-- name: remove_old_plans
-- Nobody deploys them any more; who made them, and of what, stays in the audit. Index plan_age.
delete from plan
where ctid = any(array(
    select ctid from plan where created_at < clock_timestamp() - %(kept)s::interval order by created_at limit %(limit)s
));
