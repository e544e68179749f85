"""Other task queues on the same Postgres, in the environment of requirements/bench.txt. Each prints one JSON document.

PG* variables say where the database is. They import nothing of Trace.
"""
