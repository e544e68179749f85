-- Halts of releases: while a build does the last scopes, no task is released of the jobs that it is about to replace. `releases_held_by` has
-- who wants that, and until when; `releases_held_until`, which the rounds of releases ask, is the last of these. Both are in one row.
-- The columns are named as dispatchers of the release before know them.

-- name: halt
-- However long ago they were halted last, and beside others. Only for what is being built: it may have been given up since it was looked at, and
-- what is built instead needs none. Primary keys.
update dag d
set releases_held_since = case when d.releases_held_until > clock_timestamp() then d.releases_held_since else clock_timestamp() end,
    releases_held_until = greatest(d.releases_held_until, w.until),
    releases_held_by = d.releases_held_by || jsonb_build_object(%(halter)s::text, w.until)
from dag_version v
cross join (select clock_timestamp() + %(longest)s::interval as until) w
where v.dag_version_id = %(dag_version_id)s and d.dag = v.dag and d.staged_version_id = v.dag_version_id;

-- name: end_halt
-- Before its time; for as long as another one wants it they stay halted. As with every halt that has ended, the next one comes later. Primary
-- keys.
update dag d
set releases_held_by = d.releases_held_by - %(halter)s::text,
    releases_held_until = greatest(clock_timestamp(), (
        select max(w.until::timestamptz) from jsonb_each_text(d.releases_held_by - %(halter)s::text) as w (halter, until)
    ))
from dag_version v
where v.dag_version_id = %(dag_version_id)s and d.dag = v.dag and d.staged_version_id = v.dag_version_id
    and d.releases_held_by ? %(halter)s::text;
