"""queryd, over the wire: a real process, a real DatasetService in the test, real Parquet files."""
