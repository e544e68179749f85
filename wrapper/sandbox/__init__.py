"""How operators' code is shut in: one port, one adapter with namespaces of its own, one without any."""
