"""The wrapper: the trusted daemon of a worker host, and the boundary around operator code."""
