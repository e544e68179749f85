-- Jobs of other DAGs that read a DAG's datasets, and how they follow its pointers. Under the exclusive locks of both.

-- name: follow_pointers
-- Jobs of other DAGs that read a dataset of this one follow its pointer: their subscription to the former version ends here and one to the
-- served version begins, which owes no scope that the former one brought already. The caller holds the DAG's lock exclusively. Index
-- input_binding_readers.
with moved as (
    select b.job_version_id, b.dataset_version_id as former_id, p.dataset_version_id as served_id
    from dataset d
    join pointer p using (dataset_id)
    join input_binding b on b.dataset_id = d.dataset_id and b.dataset_version_id <> p.dataset_version_id and b.trigger
    join scheduled_job s on s.dag_version_id = b.dag_version_id and s.job_version_id = b.job_version_id
    where d.dag = %(dag)s and s.dag <> d.dag
), closed as (
    update subscription s
    set to_number = h.number
    from moved m
    join dataset_head h on h.dataset_version_id = m.former_id
    where s.job_version_id = m.job_version_id and s.input_version_id = m.former_id and s.to_number is null
)
insert into subscription (job_version_id, input_version_id, from_number, replayed, instead_of_version_id)
select m.job_version_id, m.served_id, h.number, h.number = coalesce(earlier.number, 0), m.former_id
from moved m
join dataset_head h on h.dataset_version_id = m.served_id
cross join lateral (
    select max(e.to_number) as number
    from subscription e
    where e.job_version_id = m.job_version_id and e.input_version_id = m.served_id
) earlier
order by m.job_version_id, m.served_id
on conflict (job_version_id, input_version_id, from_number) do update set to_number = null, opened_at = clock_timestamp(),
    instead_of_version_id = coalesce(excluded.instead_of_version_id, subscription.instead_of_version_id);

-- name: reopen_barriers
-- Builds of other DAGs that read a dataset whose pointer has moved are owed what they follow to, as if they were staged now: what was passed is
-- so no more, and that halts came to nothing was with what they read before. Before they are bound to it. Index input_binding_readers.
update dag_version v
set barrier_at = clock_timestamp(), barrier_passed_at = null, barrier_retaken = false, barriers_by_itself = 0
from dag r
where v.dag_version_id = r.staged_version_id and r.dag <> %(dag)s and exists (
    select 1
    from dataset d
    join pointer p using (dataset_id)
    join input_binding b on b.dataset_id = d.dataset_id and b.dag_version_id = r.staged_version_id
        and b.dataset_version_id <> p.dataset_version_id
    where d.dag = %(dag)s
);

-- name: bind_readers
-- What jobs of other DAGs read from now on, in their active versions and in those that are being built. What they were built on stays known.
update input_binding b
set dataset_version_id = p.dataset_version_id, built_version_id = coalesce(b.built_version_id, b.dataset_version_id)
from dataset d
join pointer p using (dataset_id)
cross join dag r
where d.dag = %(dag)s and r.dag <> d.dag and b.dataset_id = d.dataset_id
    and b.dag_version_id in (r.active_version_id, r.staged_version_id) and b.dataset_version_id <> p.dataset_version_id;

-- name: bind_version
-- A DAG version that comes back reads what other DAGs serve now.
update input_binding b
set dataset_version_id = p.dataset_version_id, built_version_id = coalesce(b.built_version_id, b.dataset_version_id)
from dataset d
join pointer p using (dataset_id)
where b.dag_version_id = %(dag_version_id)s and d.dataset_id = b.dataset_id and d.dag <> %(dag)s
    and b.dataset_version_id <> p.dataset_version_id;

-- name: lost_readers
-- DAGs of others that read a dataset which the version that would be active does not serve. Index input_binding_readers.
select distinct s.dag, d.dataset_id
from dataset d
join input_binding b using (dataset_id)
join scheduled_job s on s.dag_version_id = b.dag_version_id and s.job_version_id = b.job_version_id
where d.dag = %(dag)s and s.dag <> d.dag and not exists (
    select 1 from dag_version_dataset v where v.dag_version_id = %(dag_version_id)s and v.dataset_id = d.dataset_id
)
order by s.dag, d.dataset_id;

-- name: readers
-- DAGs of others that read datasets of this one. Index input_binding_readers.
select distinct s.dag, d.dataset_id
from dataset d
join input_binding b using (dataset_id)
join scheduled_job s on s.dag_version_id = b.dag_version_id and s.job_version_id = b.job_version_id
where d.dag = %(dag)s and s.dag <> d.dag
order by s.dag, d.dataset_id;
