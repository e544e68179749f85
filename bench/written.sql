-- What transactions wrote, as Postgres's own log of writes tells it.

-- name: extension
create extension if not exists pg_walinspect;

-- name: mark
-- Writes a record that means nothing, and answers where it ends: all before it is on the disk, and can be read.
select pg_logical_emit_message(false, 'bench', '', true)::text;

-- name: written
-- From one mark to another: by transaction and table of this database, rows inserted, updated and deleted; by committed transaction those
-- that were its savepoints'. Locks of rows, indexes and the server's own tables are left out.
with record as materialized (
    select r.xid::text::bigint as xid, r.resource_manager, r.record_type, r.description,
        string_to_array(split_part(split_part(r.block_ref, 'rel ', 2), ' ', 1), '/')::oid[] as relation
    from pg_get_wal_records_info(%(first)s::pg_lsn, %(last)s::pg_lsn) r
), change as (
    select xid, relation[3] as relation,
        coalesce(substring(description from 'ntuples: ([0-9]+)')::bigint, 1) as row_count
    from record
    where resource_manager in ('Heap', 'Heap2')
        and split_part(record_type, '+', 1) in ('INSERT', 'MULTI_INSERT', 'UPDATE', 'HOT_UPDATE', 'DELETE')
        and relation[2] = (select oid from pg_database where datname = current_database())
        and relation[3] >= 16384
)
select xid, coalesce(c.relname, 'of a table that is gone') as table_name, sum(row_count)::bigint as row_count,
    '' as savepoints
from change
left join pg_class c on c.relfilenode = relation
where c.relkind is distinct from 't'
group by 1, 2
union all
select xid, '', 0, substring(description from 'subxacts: ([0-9 ]+)')
from record
where resource_manager = 'Transaction' and record_type = 'COMMIT' and description like '%%subxacts: %%';
