"""The query daemon: pins, gates, runs and streams queries over datasets."""
