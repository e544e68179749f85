-- How often a build took a barrier by itself since it was staged: each that came to nothing doubles the pause before the next hold of releases.
alter table dag_version add column barriers_by_itself integer not null default 0;
