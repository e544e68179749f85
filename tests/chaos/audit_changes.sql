-- What the harness writes down of changes to pipelines, and of what is collected; numbered with all else by chaos.seq. What the collector
-- removes stays on record here.
create table chaos.dag_move (
    seq bigint primary key default nextval('chaos.seq'),
    dag text not null,
    active_version_id uuid,
    staged_version_id uuid,
    at timestamptz not null default clock_timestamp(),
    txid bigint not null default pg_current_xact_id()::text::bigint
);
create function chaos.note_dag() returns trigger language plpgsql as $$
begin
    if tg_op = 'INSERT' or (old.active_version_id, old.staged_version_id, old.removed_at)
            is distinct from (new.active_version_id, new.staged_version_id, new.removed_at) then
        insert into chaos.dag_move (dag, active_version_id, staged_version_id)
        values (new.dag, case when new.removed_at is null then new.active_version_id end, new.staged_version_id);
    end if;
    return null;
end $$;
create trigger chaos_move after insert or update on dag for each row execute function chaos.note_dag();

create table chaos.activated (
    seq bigint primary key default nextval('chaos.seq'),
    dag text not null,
    dag_version_id uuid not null,
    deploy_number bigint not null,
    at timestamptz not null default clock_timestamp(),
    txid bigint not null default pg_current_xact_id()::text::bigint
);
create function chaos.note_activation() returns trigger language plpgsql as $$
begin
    insert into chaos.activated (dag, dag_version_id, deploy_number) values (new.dag, new.dag_version_id, new.from_deploy);
    return null;
end $$;
create trigger chaos_insert after insert on activation for each row execute function chaos.note_activation();

create table chaos.run_change (
    seq bigint primary key default nextval('chaos.seq'),
    job_version_id uuid not null,
    run_state text not null,
    epoch bigint not null,
    at timestamptz not null default clock_timestamp(),
    txid bigint not null default pg_current_xact_id()::text::bigint
);
create function chaos.note_runs() returns trigger language plpgsql as $$
begin
    insert into chaos.run_change (job_version_id, run_state, epoch) select job_version_id, run_state, epoch from made;
    return null;
end $$;
create trigger chaos_insert after insert on job_version_run referencing new table as made
for each statement execute function chaos.note_runs();
create function chaos.note_changed_runs() returns trigger language plpgsql as $$
begin
    insert into chaos.run_change (job_version_id, run_state, epoch)
    select m.job_version_id, m.run_state, m.epoch
    from made m
    join former f using (job_version_id)
    where (m.run_state, m.epoch) is distinct from (f.run_state, f.epoch);  -- a barrier leaves them as they are
    return null;
end $$;
create trigger chaos_update after update on job_version_run referencing new table as made old table as former
for each statement execute function chaos.note_changed_runs();

-- What a person or a duty has said that it did.
create table chaos.said (
    seq bigint primary key default nextval('chaos.seq'),
    method text not null,
    txid bigint not null default pg_current_xact_id()::text::bigint
);
create function chaos.note_audit() returns trigger language plpgsql as $$
begin
    insert into chaos.said (method) values (new.method);
    return null;
end $$;
create trigger chaos_insert after insert on audit for each row when (new.outcome = 'done') execute function chaos.note_audit();

-- Whose events job versions get from then on, or do not any more.
create table chaos.listened (
    seq bigint primary key default nextval('chaos.seq'),
    job_version_id uuid not null,
    dataset_version_id uuid not null,
    listens boolean not null,
    txid bigint not null default pg_current_xact_id()::text::bigint
);
create function chaos.note_subscription() returns trigger language plpgsql as $$
begin
    if tg_op = 'INSERT' or old.to_number is distinct from new.to_number then
        insert into chaos.listened (job_version_id, dataset_version_id, listens)
        values (new.job_version_id, new.input_version_id, new.to_number is null);
    end if;
    return null;
end $$;
create trigger chaos_listen after insert or update on subscription for each row execute function chaos.note_subscription();

-- What DAG versions are made of, and what job versions write.
create table chaos.version_job (dag_version_id uuid not null, job_version_id uuid not null);
create function chaos.note_settings() returns trigger language plpgsql as $$
begin
    insert into chaos.version_job select dag_version_id, job_version_id from made;
    return null;
end $$;
create trigger chaos_insert after insert on dag_version_job referencing new table as made
for each statement execute function chaos.note_settings();

create table chaos.version_dataset (dag_version_id uuid not null, dataset_id text not null, dataset_version_id uuid not null);
create function chaos.note_served() returns trigger language plpgsql as $$
begin
    insert into chaos.version_dataset select dag_version_id, dataset_id, dataset_version_id from made;
    return null;
end $$;
create trigger chaos_insert after insert on dag_version_dataset referencing new table as made
for each statement execute function chaos.note_served();

create table chaos.output (job_version_id uuid not null, dataset_version_id uuid not null);
create function chaos.note_outputs() returns trigger language plpgsql as $$
begin
    insert into chaos.output select job_version_id, dataset_version_id from made;
    return null;
end $$;
create trigger chaos_insert after insert on job_output referencing new table as made
for each statement execute function chaos.note_outputs();

-- Dataset versions that were given up. A pin and this one meet at the version's row, so their numbers are in order.
create table chaos.condemned (
    seq bigint primary key default nextval('chaos.seq'),
    dataset_version_id uuid not null,
    at timestamptz not null default clock_timestamp()
);
create function chaos.note_condemned() returns trigger language plpgsql as $$
begin
    if old.condemned_at is null and new.condemned_at is not null then
        insert into chaos.condemned (dataset_version_id) values (new.dataset_version_id);
    end if;
    return null;
end $$;
create trigger chaos_update after update on dataset_version for each row execute function chaos.note_condemned();

create table chaos.pinned (
    seq bigint primary key default nextval('chaos.seq'),
    pin_id uuid not null,
    dataset_version_id uuid not null
);
create function chaos.note_pinned() returns trigger language plpgsql as $$
begin
    insert into chaos.pinned (pin_id, dataset_version_id) select pin_id, dataset_version_id from made;
    return null;
end $$;
create trigger chaos_insert after insert on pin_dataset referencing new table as made
for each statement execute function chaos.note_pinned();

create table chaos.pin_change (
    seq bigint primary key default nextval('chaos.seq'),
    pin_id uuid not null,
    expires_at timestamptz                      -- null: it was released
);
create function chaos.note_pin() returns trigger language plpgsql as $$
begin
    if tg_op = 'DELETE' then
        insert into chaos.pin_change (pin_id) values (old.pin_id);
    else
        insert into chaos.pin_change (pin_id, expires_at) values (new.pin_id, new.expires_at);
    end if;
    return null;
end $$;
create trigger chaos_pin after insert or update or delete on pin for each row execute function chaos.note_pin();
