"""The way to Postgres: pool, named statements, batcher, migrations. It knows no slice and no table but its own."""
