"""Acceptance of events, with their artifacts and their consumers' tasks, in one transaction."""
