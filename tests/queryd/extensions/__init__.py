"""What the tests have from a DuckDB with extensions, in an environment of its own."""
