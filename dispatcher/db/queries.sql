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

-- name: planned_once
-- For statements whose plan takes longer than their work: they are planned once for a connection, not for each execution anew, and by
-- indexes only, because what is planned while the tables are empty must do when they are full. And a limit for the whole transaction: as
-- long as its statements come in one pipeline, the server does not count it as idle. Until the end of the transaction.
select set_config('plan_cache_mode', 'force_generic_plan', true), set_config('enable_seqscan', 'off', true),
    set_config('transaction_timeout', %(limit)s, true);

-- name: planned_once_unflushed
-- The same, and COMMIT does not wait for the disk.
select set_config('plan_cache_mode', 'force_generic_plan', true), set_config('enable_seqscan', 'off', true),
    set_config('transaction_timeout', %(limit)s, true), set_config('synchronous_commit', 'off', true);

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
