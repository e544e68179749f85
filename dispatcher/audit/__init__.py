"""The audit: what was done to DAGs, tasks, queues and dataset versions, by whom, and what was refused."""
