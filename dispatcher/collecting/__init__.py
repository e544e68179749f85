"""Retention: files that no attempt brought home, and dataset versions that a person gave up."""
