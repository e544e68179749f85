-- A removed DAG of whose jobs some are still to be retired: a large one takes more than one transaction.
alter table dag add column ending boolean not null default false;
create index dag_ending on dag (dag) where ending;
