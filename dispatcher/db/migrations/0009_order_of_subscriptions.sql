-- When an interval was begun, or begun again: of the versions of a dataset that a job has read, the last one is what another takes the place of.
alter table subscription add column opened_at timestamptz not null default now();
alter table subscription alter column opened_at set default clock_timestamp();
