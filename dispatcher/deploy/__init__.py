"""Deployment of DAG versions."""
