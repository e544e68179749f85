-- An ordered job that follows the pointer of another DAG's dataset passes by what it had of the version before. How many scopes of this
-- input, so that what it made stays marked when its tasks are long gone.
alter table subscription add column passed_count bigint not null default 0;
