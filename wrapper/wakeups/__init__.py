"""By what a worker is woken: the port, and an adapter for each way."""
