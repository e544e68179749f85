"""The engine behind a query: a process of its own, locked down before it sees any text of a user."""
