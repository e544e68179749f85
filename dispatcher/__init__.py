"""The dispatcher: the stateless service that turns events into tasks, with Postgres as its only truth."""
