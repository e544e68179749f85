-- Who wants releases held, each with the time until which: who wants it no more ends no other one's hold. The last of these times is
-- `releases_held_until`.
alter table dag
    add column releases_held_by jsonb not null default '{}',
    -- Since when they have been held without a moment in between.
    add column releases_held_since timestamptz;
