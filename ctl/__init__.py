"""tracectl: the command line, and the embedded stack behind its `up`."""
