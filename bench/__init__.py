"""Measurements of the whole stack, started as `tracectl up` starts it."""
