"""Tasks: their states, leases, attempts."""
