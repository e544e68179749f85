-- The moment before which all has to be done that a staged version's inputs had: that of the staging, and of each try to cut over. When it
-- was seen that it is, which stays so.
alter table dag_version
    add column barrier_at timestamptz,
    add column barrier_passed_at timestamptz,
    add column barrier_retaken boolean not null default false;
update dag_version set barrier_at = staged_at where staged_at is not null;

-- A build that has a DEAD task is found without reading all that it has in work.
create index task_dead on task (job_version_id, task_id) where state = 'dead';
