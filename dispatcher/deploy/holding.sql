-- Holds of releases: while a build does the last scopes, no task is released of the jobs that it is about to replace.

-- name: hold_again
-- By itself: not before as much time has passed without as the hold lasts, and not for one that waits for a person. Only for what is being
-- built: it may have been given up since it was looked at, and what is built instead needs none. Primary keys.
update dag d
set releases_held_until = clock_timestamp() + %(longest)s::interval
from dag_version v
where v.dag_version_id = %(dag_version_id)s and d.dag = v.dag and d.staged_version_id = v.dag_version_id and not v.hold
    and (d.releases_held_until is null or d.releases_held_until < clock_timestamp() - %(longest)s::interval);

-- name: hold
-- However long ago they were held last; only for what is being built. Primary keys.
update dag d
set releases_held_until = clock_timestamp() + %(longest)s::interval
from dag_version v
where v.dag_version_id = %(dag_version_id)s and d.dag = v.dag and d.staged_version_id = v.dag_version_id;

-- name: end_hold
-- Before its time. As with every hold that has ended, the next one comes later. Primary keys.
update dag d
set releases_held_until = clock_timestamp()
from dag_version v
where v.dag_version_id = %(dag_version_id)s and d.dag = v.dag and d.staged_version_id = v.dag_version_id;
