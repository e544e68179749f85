"""Attacks on the gate: a corpus as data (one file a class), and plain engines on which each of them succeeds."""
