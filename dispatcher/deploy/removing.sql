-- The end of a DAG. One row makes it true; what follows from it is written in pages of rows.

-- name: remove_dag
-- From now on nothing of it is scheduled. Its pointers stay. Primary key.
update dag
set removed_at = clock_timestamp(), staged_version_id = null, releases_held_until = null, releases_held_by = '{}', ending = true
where dag = %(dag)s;

-- name: ending_dags
-- Index dag_ending.
select dag from dag where ending order by dag;

-- name: is_ending
-- And whether it still is removed, and nothing is being built of it. Under the DAG's row. Primary key.
select ending, removed_at is not null and staged_version_id is null as removed from dag where dag = %(dag)s for no key update;

-- name: feeding_dags
-- The other DAGs whose events still make tasks of its jobs. Index subscription_open by its jobs, primary keys.
select distinct d.dag
from job_version j
join subscription s on s.job_version_id = j.job_version_id and s.to_number is null
join dataset_version v on v.dataset_version_id = s.input_version_id
join dataset d using (dataset_id)
where j.dag = %(dag)s and d.dag <> j.dag
order by d.dag;

-- name: end_jobs
-- Fences the next of its jobs, and ends their subscriptions up to the heads as they are under the exclusive locks. So many jobs that a page has
-- no more than `most` rows, and one at least; whether there are more, and how many rows it has. Unique index of (dag, job, fingerprint), primary keys.
with waiting as (
    select j.job_version_id, 1 + count(s.input_version_id) as rows
    from job_version j
    join job_version_run r using (job_version_id)
    left join subscription s on s.job_version_id = j.job_version_id and s.to_number is null
    where j.dag = %(dag)s and (r.run_state in ('running', 'staged') or s.input_version_id is not null)
    group by j.job_version_id
), counted as (
    select job_version_id, rows, sum(rows) over (order by job_version_id) as so_far from waiting
), page as (
    select job_version_id from counted where so_far <= %(most)s or so_far = rows
), stopped as (
    update job_version_run r
    set run_state = 'retired', epoch = epoch + 1, actor = %(actor)s, changed_at = clock_timestamp()
    from page
    where r.job_version_id = page.job_version_id
), closed as (
    update subscription s
    set to_number = h.number
    from page, dataset_head h
    where s.job_version_id = page.job_version_id and s.to_number is null and h.dataset_version_id = s.input_version_id
)
select (select count(*) from page) < (select count(*) from waiting) as more,
    coalesce((select sum(rows) from counted join page using (job_version_id)), 0)::bigint as rows;

-- name: free_claimed
-- What only versions claimed that were never active is free again: nothing of it was ever served. Index dag_version_dataset by its first column.
delete from dataset
where dataset_id in (
    select s.dataset_id
    from dag_version v
    join dag_version_dataset s using (dag_version_id)
    join dataset d on d.dataset_id = s.dataset_id and d.dag = v.dag
    where v.dag = %(dag)s and v.state = 'aborted' and v.active_at is null and not exists (
        select 1
        from dag_version a
        join dag_version_dataset o using (dag_version_id)
        where a.dag = v.dag and a.active_at is not null and o.dataset_id = s.dataset_id
    )
    limit %(most)s
);

-- name: end_dag
-- Nothing is left to do of its removal. Primary key.
update dag set ending = false where dag = %(dag)s;
