"""Flight SQL as clients meet it that people have: the ADBC driver and pyarrow.flight, unmodified."""
