-- Retention: what the collector takes, what it keeps away from, and how far it is.

-- A condemned version is being taken: nobody pins it or takes it up again, its rows and files go page by page.
alter table dataset_version
    add column condemned_at timestamptz,
    add column condemned_by text,
    add constraint condemned_by_someone check ((condemned_at is null) = (condemned_by is null));
create index dataset_version_condemned on dataset_version (condemned_at, dataset_version_id) where condemned_at is not null;

-- A removed DAG's datasets can be read until they are condemned.
create or replace view pointer as
select d.dataset_id, s.dataset_version_id
from dataset d
join dag g on g.dag = d.dag
join dag_version_dataset s on s.dag_version_id = g.active_version_id and s.dataset_id = d.dataset_id
join dataset_version v on v.dataset_version_id = s.dataset_version_id and v.condemned_at is null;

-- When a part of what it served was first taken.
alter table dag_version add column collected_at timestamptz;

-- Until when a version was served says how long it is kept.
alter table activation add column from_time timestamptz not null default clock_timestamp();
update activation a
set from_time = v.active_at
from dag_version v
where v.dag_version_id = a.dag_version_id and v.active_at is not null;

-- The last time that each DAG version was active; without an end where it still is. Of a DAG that was removed nothing is.
create view dag_version_use as
select distinct on (a.dag_version_id) a.dag, a.dag_version_id, a.from_deploy, coalesce(a.until, d.removed_at) as until,
    d.removed_at is not null as removed
from (
    select dag, dag_version_id, from_deploy, lead(from_time) over (partition by dag order by from_deploy) as until
    from activation
) a
join dag d using (dag)
order by a.dag_version_id, a.from_deploy desc;

-- DAG versions that no rollback can restore: something that they served is taken, or being taken.
create view collected_dag_version as
select g.dag_version_id
from dag_version g
where g.collected_at is not null or exists (
    select 1
    from dag_version_dataset s
    join dataset_version v using (dataset_version_id)
    where s.dag_version_id = g.dag_version_id and v.condemned_at is not null
);

-- When somebody last began to look through the artifact store; of all dispatchers one does.
create table orphan_sweep (
    only_row boolean primary key default true check (only_row),
    begun_at timestamptz not null
);
insert into orphan_sweep (begun_at) values ('-infinity');

-- Who names a version, and what there is of a job version.
create index input_binding_of on input_binding (dataset_version_id);
create index input_binding_built on input_binding (built_version_id) where built_version_id is not null;
create index subscription_of on subscription (input_version_id);
create index subscription_instead on subscription (instead_of_version_id) where instead_of_version_id is not null;
create index task_of_source on task (job_version_id) where event_id is null;
create index finished_task_of_source on finished_task (job_version_id) where event_id is null;
