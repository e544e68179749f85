-- Queries on record: who asked what of which datasets, and how it ended. Partitioned by the day of the recording (UTC), so that old days are
-- dropped, not deleted; nothing else of it is changed or taken away.

create type query_call as enum ('query', 'explain', 'flight', 'flight_describe');
create type query_as_of as enum ('now', 'deploy', 'pin');
create type query_outcome as enum ('succeeded', 'canceled', 'refused', 'failed');

create sequence query_record_number;

create table query_record (
    record_number bigint not null default nextval('query_record_number'),
    record_id uuid not null,
    query_id uuid not null,
    recorded_at timestamptz not null,
    recorded_by text not null,
    actor text not null,
    call query_call not null,
    client text not null,
    sql_sha256 bytea not null check (length(sql_sha256) = 32),
    as_of query_as_of not null,
    deploy_number bigint,
    dataset_ids text[] not null,
    dataset_version_ids uuid[] not null,
    publication_numbers bigint[] not null,
    started_at timestamptz not null,
    elapsed interval not null,
    row_count bigint not null,
    arrow_bytes bigint not null,
    outcome query_outcome not null,
    reason text,
    primary key (record_number, recorded_at),
    constraint query_record_reason check ((outcome = 'succeeded') = (reason is null)),
    constraint query_record_pins check (
        cardinality(dataset_ids) = cardinality(dataset_version_ids) and cardinality(dataset_ids) = cardinality(publication_numbers)
    )
) partition by range (recorded_at);

-- Whether a record is there already, when it is sent again.
create index query_record_id on query_record (record_id);
create index query_record_query on query_record (query_id);
create index query_record_actor on query_record (actor, record_number);
-- Without a pending list: who records does not write down what others have left in it.
create index query_record_dataset on query_record using gin (dataset_ids) with (fastupdate = off);

create function refuse_change_of_query_record() returns trigger language plpgsql as $$
begin
    raise exception 'query_record is append-only: % is refused', lower(tg_op)
    using errcode = 'insufficient_privilege', hint = 'What was recorded stays until its day is no longer kept (query_record_days).';
end $$;

create trigger query_record_append_only before update or delete or truncate on query_record
for each statement execute function refuse_change_of_query_record();
alter table query_record enable always trigger query_record_append_only;

-- Makes the partition of a day, where it is not there. A trigger for statements is not handed down: each partition has its own.
create function add_query_day(day date) returns void language plpgsql as $$
declare
    part text := 'query_record_' || to_char(day, 'YYYYMMDD');
begin
    if to_regclass(part) is null then
        execute format('create table %I (like query_record including all)', part);
        execute format(
            'create trigger query_record_append_only before update or delete or truncate on %I '
            'for each statement execute function refuse_change_of_query_record()', part
        );
        execute format('alter table %I enable always trigger query_record_append_only', part);
        execute format(
            'alter table query_record attach partition %I for values from (%L) to (%L)', part,
            day::timestamp at time zone 'UTC', (day + 1)::timestamp at time zone 'UTC'
        );
    end if;
end $$;

-- The days that have a partition.
create view query_day as
select to_date(right(c.relname, 8), 'YYYYMMDD') as day
from pg_inherits i
join pg_class c on c.oid = i.inhrelid
where i.inhparent = 'query_record'::regclass;

-- Drops the partition of a day. It needs a lock that excludes readers of the record, for a moment: the caller limits the wait for it.
create function drop_query_day(day date) returns void language plpgsql as $$
begin
    execute format('drop table if exists %I', 'query_record_' || to_char(day, 'YYYYMMDD'));
end $$;
