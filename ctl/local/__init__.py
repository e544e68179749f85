"""The embedded stack behind `tracectl up`: starts every program as a process of its own, watches them, stops them."""
