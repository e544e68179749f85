-- The names of `schema` in the order of the columns, a JSON array: jsonb sorts the keys of an object and keeps a list as it is. Null where no
-- columns are known yet, and in versions that are older than this: by name.
alter table dataset_version add column column_order jsonb;
