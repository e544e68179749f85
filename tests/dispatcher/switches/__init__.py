"""Versions that take each other's place: deploys, cutovers, rollbacks, and what is in work or reads meanwhile."""
