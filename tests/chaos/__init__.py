"""Chaos: real programs under seeded faults, and a checker over what their clients heard and what the database holds."""
