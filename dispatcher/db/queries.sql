-- name: unsafe_durability
-- The settings by which a server may forget what it has committed.
select name, setting
from pg_settings
where name in ('fsync', 'full_page_writes', 'synchronous_commit') and setting = 'off'
order by name;

-- name: begin_unflushed
-- A transaction whose COMMIT does not wait for the disk.
begin;
set local synchronous_commit = off;

-- name: set_for_pipeline
-- Until the end of the transaction: whether COMMIT waits for the disk; a limit for all of it, because the server does not count it as idle
-- as long as its statements come in one pipeline; and how statements are planned.
select set_config('transaction_timeout', %(limit)s, true),
    set_config('synchronous_commit', coalesce(%(commit)s, current_setting('synchronous_commit')), true),
    set_config('plan_cache_mode', %(plans)s, true), set_config('enable_seqscan', %(seqscan)s, true);

-- name: plan_each
-- From here on, by what is in the tables and in the parameters.
select set_config('plan_cache_mode', 'auto', true), set_config('enable_seqscan', 'on', true);

-- name: set_migration_limits
-- Migrations may run long, but never wait long for a lock that the running dispatchers hold.
select set_config('lock_timeout', %(lock_timeout)s, false),
    set_config('statement_timeout', %(statement_timeout)s, false),
    set_config('idle_in_transaction_session_timeout', '60s', false);

-- name: lock_migrations
-- One migrating process per database; lock_timeout bounds the wait.
select pg_advisory_lock(%(lock)s);

-- name: unlock_migrations
select pg_advisory_unlock(%(lock)s);

-- name: create_schema_migration
create table if not exists schema_migration (
    number integer primary key,
    name text not null,
    sha256 bytea not null check (octet_length(sha256) = 32),
    applied_at timestamptz not null default now()
);

-- name: applied_migrations
select number, name, sha256 from schema_migration order by number;

-- name: record_migration
insert into schema_migration (number, name, sha256) values (%(number)s, %(name)s, %(sha256)s);
