"""Arrow Flight and Flight SQL over the same queries, for clients that people have already."""
