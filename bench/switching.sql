-- name: queue_wide
-- Events of the source `ticks` of a DAG, in one publication, and their tasks, queued, of every job version that may run.
with source as (
    select o.dataset_version_id, t.task_id
    from job_version s
    join job_output o using (job_version_id)
    join task t on t.job_version_id = s.job_version_id and t.origin = 'source_run'
    where s.dag = %(dag)s and s.job = 'ticks'
), head as (
    update dataset_head h
    set number = h.number + 1, event_count = h.event_count + %(events)s
    from source
    where h.dataset_version_id = source.dataset_version_id
    returning h.dataset_version_id, h.number
), published as (
    insert into publication (publication_id, dataset_version_id, number, event_count)
    select uuidv7(), dataset_version_id, number, %(events)s::int from head
    returning publication_id
), made as (
    insert into event (
        event_id, dataset_version_id, producer_task_id, producer_attempt, scope_kind, scope_first, scope_last, revision,
        payload_digest, publication_id, origin
    )
    select uuidv7(), source.dataset_version_id, source.task_id, 1, 1, k.key, k.key, 0, sha256(''), p.publication_id, 'live'
    from source
    cross join published p
    cross join lateral (
        select int8send(n # (-9223372036854775808)) as key from generate_series(1, %(events)s::bigint) as n
    ) k
    returning event_id, scope_first
)
insert into task (task_id, job_version_id, event_id, origin, scope_kind, scope_first, scope_last)
select uuidv7(), j.job_version_id, m.event_id, 'live', 1, m.scope_first, m.scope_first
from scheduled_job s
join job_version j using (job_version_id)
cross join made m
where s.dag = %(dag)s and j.kind = 'operator';
