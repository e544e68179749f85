-- The audit says of which DAGs a change was, by which plan, from which version to which, and how it ended; and nothing of it is taken away.

create type audit_outcome as enum ('done', 'refused');

-- By which plan it was deployed. Plans are kept for some days, their ids for ever: no foreign key.
alter table dag_version add column plan_id uuid;

-- Rows of the release before have no action and no DAGs: their subject is the DAG.
alter table audit
    add column action text,
    add column dags text[],
    add column outcome audit_outcome not null default 'done',
    add column reason text,
    add column plan_id uuid,
    add column from_version bigint,
    add column to_version bigint,
    add constraint audit_refused check ((outcome = 'refused') = (reason is not null));

-- Without a pending list: who switches a pipeline does not write down what others have left in it.
create index audit_of_dag on audit using gin (coalesce(dags, array[subject])) with (fastupdate = off);

-- Who asks again and again for what is refused makes one row a minute.
create unique index audit_refused_once on audit
    (date_bin('1 minute', at at time zone 'UTC', timestamp '2000-01-01'), actor, method, subject, reason)
where outcome = 'refused';

create function refuse_change_of_audit() returns trigger language plpgsql as $$
begin
    raise exception 'audit is append-only: % is refused', lower(tg_op)
    using errcode = 'insufficient_privilege', hint = 'What was recorded stays; what corrects it is another row.';
end $$;

create trigger audit_append_only before update or delete or truncate on audit
for each statement execute function refuse_change_of_audit();
alter table audit enable always trigger audit_append_only;
