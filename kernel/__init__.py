"""What every program shares: clock, ids, errors, servers, channels, artifact stores. It knows no program."""
